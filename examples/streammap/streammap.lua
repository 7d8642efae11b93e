-- A page of memory that travels in the answer to a call.
local L4 = require("L4")
local ld = L4.default_loader

local channel = ld:new_channel()

ld:start({ caps = { smap = channel:svr() }, log = { "server", "yellow" } }, "rom/ex_streammap_srv")
ld:start({ caps = { smap = channel }, log = { "client", "green" } }, "rom/ex_streammap_clnt")
