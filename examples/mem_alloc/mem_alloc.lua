-- One program, and the memory it may have: a factory with a quota of its own.
local L4 = require("L4")

local memory = L4.Env.user_factory:create(L4.Proto.Factory, 1024 * 1024)

L4.default_loader:start({
  mem = memory:m("rs"),
  log = { "mem", "cyan" },
}, "rom/ex_mem_alloc")
