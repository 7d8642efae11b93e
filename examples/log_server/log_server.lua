-- A program that serves the log of another.
local L4 = require("L4")
local ld = L4.default_loader

local console = ld:new_channel()

ld:start({ caps = { console = console:svr() }, log = { "console", "magenta" } }, "rom/ex_log_server")
ld:start({ log = console }, "rom/ex_log_hello")
