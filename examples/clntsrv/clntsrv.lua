-- A calculator and its client: one channel, of which the server gets the server's side.
local L4 = require("L4")
local ld = L4.default_loader

local calc = ld:new_channel()

ld:start({
  caps = { calc_server = calc:svr() },
  log = { "server", "blue" },
}, "rom/ex_clntsrv_srv")

ld:start({
  caps = { calc_server = calc },
  log = { "client", "green" },
}, "rom/ex_clntsrv_clnt")
