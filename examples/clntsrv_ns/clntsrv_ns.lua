-- Server and client meet in a namespace: the server may write into it, the client only look things up.
-- The name is there from the beginning, without an object, so that the client waits for it.
local L4 = require("L4")
local ld = L4.default_loader

local namespace = ld:create_namespace({ the_object = "to be filled by the server" })

ld:start({
  caps = { namespace = namespace:m("rw") },
  log = { "server", "blue" },
}, "rom/ex_clntsrv_ns_srv")

ld:start({
  caps = { namespace = namespace:m("r") },
  log = { "client", "green" },
}, "rom/ex_clntsrv_ns_clnt")
