"""Peers: who is measured, one module for each way to talk.

A peer promises to be used as well as it can be, to check nothing less than its users would, and to say why it is
missing. What it is asked to do stands in `bench.peers.base`; when and how often is the scenarios' business.
"""

from importlib import import_module

from .base import Peer

__all__ = ["OURS", "PEERS", "Peer", "peer_named"]

#: Where each is defined, in the order of the tables. A worker imports the one it needs.
PEERS: dict[str, tuple[str, str]] = {
    "l4re": ("ours", "Ours"),
    "l4re leaf": ("leaf", "Leaf"),
    "C spin+futex": ("floor", "FloorSpinFutex"),
    "C spin": ("floor", "FloorSpin"),
    "C futex": ("floor", "FloorFutex"),
    "mp.Pipe": ("pipe", "MpPipe"),
    "seqpacket": ("seqpacket", "Seqpacket"),
    "seqpacket busy": ("seqpacket", "SeqpacketBusy"),
    "page+eventfd": ("page", "Page"),
    "page busy": ("page", "PageBusy"),
    "mp.Queue": ("mpqueue", "MpQueue"),
    "SharedMemory+semaphore": ("semaphore", "SharedSemaphore"),
    "posix_ipc": ("posix", "PosixQueue"),
    "zmq": ("zeromq", "ZeroMq"),
    "pynng": ("nng", "Nng"),
    "iceoryx2": ("iox", "Iceoryx"),
    "iceoryx2 busy": ("iox", "IceoryxBusy"),
    "zenoh": ("zen", "Zenoh"),
    "python": ("bare", "BarePython"),
    "memfd+mmap": ("memory", "Memfd"),
    "SharedMemory": ("memory", "StdSharedMemory"),
    "copy_file_range": ("memory", "KernelCopy"),
}
#: The one all others are compared with.
OURS = "l4re"


def peer_named(name: str) -> Peer:
    """Return the peer of that name.

    Raises:
        ImportError: it needs a package that is not installed.
    """
    module, kind = PEERS[name]
    peer = getattr(import_module(f".{module}", __package__), kind)()
    assert isinstance(peer, Peer)
    assert peer.name == name
    return peer
