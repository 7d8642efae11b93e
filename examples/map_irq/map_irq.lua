-- A client hands its IRQ to a server, which triggers it. What follows `--` on the command line goes to the server:
-- `l4re run map_irq.lua -- 0` is without its pauses.
local L4 = require("L4")
local ld = L4.default_loader

local channel = ld:new_channel()

ld:startv({ caps = { irq_server = channel:svr() }, log = { "server", "yellow" } }, "rom/ex_map_irq_server", table.unpack(arg))
ld:start({ caps = { irq_server = channel }, log = { "client", "green" } }, "rom/ex_map_irq_client")
