"""What server and client agree on: a call whose answer is a page of memory."""

from typing import Annotated

import l4re

__all__ = ["PAGE", "PageSource"]

#: Bytes of a page.
PAGE = 4096


class PageSource(l4re.Interface):
    """Hands out a page that its clients can read."""

    protocol = 0

    @l4re.rpc
    def get_page(self) -> Annotated[l4re.Dataspace, l4re.Rights.R]:
        """Return the page."""
        raise NotImplementedError
