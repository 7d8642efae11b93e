-- One program that needs nobody.
local L4 = require("L4")

L4.default_loader:start({ log = { "uirq", "cyan" } }, "rom/ex_uirq")
