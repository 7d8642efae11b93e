"""The same system as in ``clntsrv.lua``, in Python: ``l4re run clntsrv.py``, or simply ``python clntsrv.py``."""

import sys

import l4re

with l4re.Loader() as ld:
    calc = ld.new_channel()
    ld.start({"caps": {"calc_server": calc.svr}, "log": ("server", "blue")}, "rom/ex_clntsrv_srv")
    ld.start({"caps": {"calc_server": calc}, "log": ("client", "green")}, "rom/ex_clntsrv_clnt")
sys.exit(ld.status)
