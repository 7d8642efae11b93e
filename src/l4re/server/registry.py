"""The registry: which object is served for which capability."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from l4re.cap import Capability
from l4re.errors import Exists, InvalidArgument, NotFound
from l4re.gate import Svr
from l4re.interface import Served, check_implementation
from l4re.irq import Irq, IrqHandler, IrqSource, Pin
from l4re.rights import Rights
from l4re.server.local import LocalGate
from l4re.server.ports import Binding, Port, PortInfo, PortTree
from l4re.server.stats import ObjectStats

if TYPE_CHECKING:
    from l4re.server.loop import RegistryServer

__all__ = ["IrqPort", "ObjectRegistry"]

log = logging.getLogger("l4re.server")


class ObjectRegistry:
    """Registers server objects and IRQ handlers with one server (L4Re's ``Object_registry``).

    For the thread that runs the loop, or before it runs.
    """

    def __init__(self, server: RegistryServer) -> None:
        self._server = server
        self._bindings: dict[int, Binding] = {}
        self._sources: dict[int, tuple[IrqHandler, IrqSource]] = {}

    def register_obj(self, obj: Served, receive: str | Svr | None = None) -> LocalGate:
        """Serve ``obj``, and return the local capability to it.

        ``receive`` is a receive right: the name of one the parent gave, or a :class:`Svr` (which this call
        binds); without it the object gets a gate of its own, reachable through what is returned and handed out.

        Raises:
            NotFound: the parent gave nothing by that name; the message lists what there is.
            InvalidArgument: the name stands for something that cannot be served.
            Exists: the receive right is taken, or ``obj`` is registered already.
            TypeError: ``obj`` does not implement its interface.
        """
        if not isinstance(obj, Served):
            raise TypeError(
                f"a server object derives from l4re.ServerObject or l4re.Epiface; {type(obj).__name__} does not"
            )
        check_implementation(obj)
        if id(obj) in self._bindings:
            raise Exists(f"this {type(obj).__name__} is registered already; unregister it first")
        svr = self._receive_right(receive) if receive is not None else None
        binding = Binding(self._server, obj)
        gate = LocalGate(binding)
        if svr is not None:
            for end, owner in svr.bind(gate.mint):
                binding.open(end, 0, Rights.RWSD, owner=owner, first=not owner)
        self._bindings[id(obj)] = binding
        obj._l4_cap = gate
        return gate

    def _receive_right(self, receive: str | Svr) -> Svr:
        found: Capability = receive if isinstance(receive, Svr) else self._server.env.get_cap(receive)
        if not isinstance(found, Svr):
            raise InvalidArgument(f"{receive!r} is {found!r}, not a receive right: the parent gave the client's side")
        if found.bound:
            raise Exists(f"{receive!r} is registered already")
        return found

    def register_irq_obj(self, handler: IrqHandler, irq: str | Irq | None = None) -> Irq:
        """Run ``handler`` when the returned IRQ is triggered. Handed out, it becomes a fresh pipe for each holder.

        ``irq`` is an IRQ that is received in this process, or the name of one: it is taken over with those who
        hold it and with what is pending, and returned. Without it a new one is made.

        Raises:
            PermissionDenied: ``irq`` can only be triggered here.
            Exists: it has a handler already, or ``handler`` is registered.
            NotFound: the environment has nothing by that name.
            InvalidArgument: the name stands for something else.
            OutOfMemory: no descriptors are left; nothing changed.
        """
        if not isinstance(handler, IrqHandler):
            raise TypeError(f"an IRQ handler derives from l4re.IrqHandler; {type(handler).__name__} does not")
        if id(handler) in self._sources:
            raise Exists(f"this {type(handler).__name__} is registered already; unregister it first")
        if irq is not None:
            found = irq if isinstance(irq, Irq) else self._server.env.get_cap(irq)
            if not isinstance(found, Irq):
                raise InvalidArgument(f"{irq!r} is {found!r}, not an IRQ")
            irq = found
        source = IrqSource()
        server = self._server

        def watch(pin: Pin) -> None:
            pin.watched(server._leaf, IrqPort(server, pin, handler))
            if pin.counts:
                server._held(1)

        if irq is not None:
            source = irq.serve_by(watch)
        else:
            source.on_added = watch
            irq = Irq.of_handler(source)
        self._sources[id(handler)] = (handler, source)
        source.on_detach = lambda: self._detach(handler)
        return irq

    def _detach(self, handler: IrqHandler) -> IrqSource | None:
        """Forget a handler and the holders of its IRQ, which goes on without it."""
        entry = self._sources.pop(id(handler), None)
        if entry is None:
            return None
        self._server._held(-sum(pin.counts for pin in entry[1].pins))
        return entry[1]

    def unregister_obj(self, obj: Served | IrqHandler) -> None:
        """Stop serving: its ports and sessions end. Unknown objects are ignored.

        Calls that wait and calls to come get ``PeerGone`` with a text that says so; replies that were deferred
        are ``gone``. Registered again, the object has new ports: the old capabilities stay dead.
        """
        self._unregister(obj, f"this {type(obj).__name__} was unregistered by its server")

    def _unregister(self, obj: Served | IrqHandler, why: str) -> None:
        binding = self._bindings.pop(id(obj), None)
        if binding is not None:
            binding.close(why)
            binding.object._l4_cap = None
        source = self._detach(obj) if isinstance(obj, IrqHandler) else None
        if source is not None:
            source.close()

    def ports(self, obj: Served) -> tuple[PortInfo, ...]:
        """Everybody who can call ``obj``, oldest first.

        Raises:
            NotFound: it is not registered.
        """
        return tuple(port.info() for port in self._binding(obj).ports.values() if not (port.owner or port.ended))

    def tree(self, obj: Served) -> PortTree:
        """Who can call ``obj``, and from whom they have it; ``print()`` it, or revoke any branch of it.

        Raises:
            NotFound: it is not registered.
        """
        ports = self._binding(obj).ports.values()
        roots = tuple(port.node() for port in ports if port.parent is None and not port.owner)
        return PortTree(type(obj).__name__, roots)

    def stats(self, obj: Served) -> ObjectStats:
        """Counts of one object.

        Raises:
            NotFound: it is not registered.
        """
        binding = self._binding(obj)
        infos = [port.info() for port in binding.ports.values()]
        replies = [reference() for reference in self._server._outstanding.valuerefs()]  # other threads settle them
        deferred = sum(reply is not None and reply.object is obj for reply in replies)
        return ObjectStats(
            binding.served + sum(info.requests for info in infos),
            binding.holders,
            sum(not (port.owner or port.ended) for port in binding.ports.values()),
            sum(info.sessions for info in infos),
            deferred,
        )

    def revoke(self, obj: Served, port: PortInfo | int) -> None:
        """Cut one port: calls over it, over what was derived from it, and running ones end with ``PeerGone``.

        Raises:
            NotFound: there is no such port (any more).
        """
        ident = port if isinstance(port, int) else port.id
        found: Port | None = self._binding(obj).ports.get(ident)
        if found is None:
            raise NotFound(f"no port {ident}; there are {sorted(self._binding(obj).ports)}")
        found.close("the server revoked the capability")

    def _binding(self, obj: Served) -> Binding:
        try:
            return self._bindings[id(obj)]
        except KeyError:
            raise NotFound(f"this {type(obj).__name__} is not registered here") from None

    def _close(self) -> None:
        for binding in list(self._bindings.values()):
            self._unregister(binding.object, f"the server of this {type(binding.object).__name__} was closed")
        for handler, _ in list(self._sources.values()):
            self.unregister_obj(handler)


class IrqPort:
    """A pin in the loop: triggers run the handler, which the leaf calls by itself as ``triggered``.

    The pipe was emptied before, so that a trigger meanwhile is not lost.
    """

    __slots__ = ("_pin", "_server", "triggered")

    def __init__(self, server: RegistryServer, pin: Pin, handler: IrqHandler) -> None:
        self._server = server
        self._pin = pin
        self.triggered = handler.dispatch

    def failed(self, error: BaseException) -> None:
        """Hear what the handler raised.

        Raises:
            BaseException: ``error``, if it is to end the program.
        """
        if not isinstance(error, Exception):
            raise error
        name = type(getattr(self.triggered, "__self__", self.triggered)).__name__
        log.error("%s: an IRQ handler raised an exception", name, exc_info=error)

    def ready(self) -> None:
        """Handle what is out of the ordinary; believe the end last."""
        watch = self._pin.watch
        triggered, gone = self._pin.look()
        if triggered:
            try:
                self.triggered()
            except BaseException as error:
                self.failed(error)
        if gone and not self._pin.source.closed and self._pin.watch is watch:  # the handler may have detached it
            self._pin.source.remove(self._pin)
            if self._pin.counts:
                self._server._held(-1)
