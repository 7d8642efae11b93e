-- One program with a timer. `l4re run periodic_task.lua -- SECONDS` says its period.
local L4 = require("L4")

L4.default_loader:startv({ log = { "periodic", "cyan" } }, "rom/ex_periodic_task", table.unpack(arg))
