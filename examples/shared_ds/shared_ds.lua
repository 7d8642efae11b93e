-- Two programs and one channel between them: the server gets the server's side, the client the other.
-- What follows `--` on the command line goes to the client: `l4re run shared_ds.lua -- 0` is without its pause.
local L4 = require("L4")

local channel = L4.default_loader:new_channel()

L4.default_loader:start({
  caps = { shm = channel:svr() },
  log = { "server", "yellow" },
}, "rom/ex_l4re_ds_srv")

L4.default_loader:startv({
  caps = { shm = channel },
  log = { "client", "green" },
  l4re_dbg = L4.Dbg.Warn,
}, "rom/ex_l4re_ds_clnt", table.unpack(arg))
