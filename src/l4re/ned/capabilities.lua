-- Capabilities: rights, types, and the methods of the types that scripts use.
local ned = ...
local ask, request, fail, is, described, expect = ned.ask, ned.request, ned.fail, ned.is, ned.described, ned.expect
local host = ned.host
local tointeger = math.tointeger

-- Of every capability ----------------------------------------------------------------------------------------

local Cap = {}

function Cap.m(self, rights)
  expect(self, "cap", "m")
  local result = ask("mode", self, rights)
  return result
end

Cap.mode = Cap.m
Cap.rights = Cap.m

function Cap.svr(self)
  expect(self, "cap", "svr")
  local result = ask("svr", self)
  return result
end

function Cap.is_valid(self)
  expect(self, "cap", "is_valid")
  local result = ask("is_valid", self)
  return result
end

-- Factories --------------------------------------------------------------------------------------------------

local Factory = {}

-- A number or a numeral travels as a word, any other string as it is, nil as nothing; what else there is does not
-- travel.
local function words_of(method, ...)
  local words, count = {}, 0
  for at = 1, select("#", ...) do
    local value = (select(at, ...))
    local number = (type(value) == "number" or type(value) == "string") and tonumber(value)
    if number then
      value = tointeger(number)
      if not value then fail("bad argument #" .. at + 1 .. " to '" .. method .. "' (number has no integer representation)") end
    end
    if value == nil or type(value) == "string" or number then
      count = count + 1
      words[count] = value
    end
  end
  return count, words
end

function Factory.create(self, protocol, ...)
  expect(self, "cap", "create")
  local number = tointeger(tonumber(protocol))
  if not number then
    fail("bad argument #1 to 'create' (number expected, got " .. described(protocol) .. ")")
  end
  local count, words = words_of("create", ...)
  local result = request("create", self, number, table.unpack(words, 1, count))
  return result
end

-- Namespaces -------------------------------------------------------------------------------------------------

local Namespace = {}

local function key_of(method, key)
  if type(key) ~= "string" and type(key) ~= "number" then
    fail("bad argument #1 to '" .. method .. "' (string expected, got " .. described(key) .. ")")
  end
  return tostring(key)
end

-- Returns what a path of names leads to, or nil.
local function look_up(namespace, path)
  local found = namespace
  for name in path:gmatch("[^/]+") do
    if found == nil then return nil end
    found = request("query", found, name)
  end
  return found
end

function Namespace.query(self, ...)
  expect(self, "cap", "query")
  if select("#", ...) == 0 then fail("expected at least two arguments in name-space query") end
  local name, rights = ...
  local path = key_of("query", name)
  return function()
    local found = look_up(self, path)
    if found ~= nil and rights ~= nil then found = Cap.m(found, rights) end
    return found
  end
end

-- Puts a capability under a name. A string or false reserves the name for whoever fills it; nil takes it away.
function Namespace.__register(self, key, value)
  expect(self, "cap", "__register")
  local name = key_of("__register", key)
  if value == nil then
    request("unregister", self, name)
  elseif is(value, "cap") then
    request("register", self, name, value)
  elseif type(value) == "string" then
    request("register", self, name, nil)
  else
    fail("unexpected value to register in namespace (" .. described(value) .. ")")
  end
end

-- A path such as "rom/x": fields of L4.Env, and then names in namespaces.
local function resolve(path)
  local found = ned.environment
  for name in path:gmatch("[^/]+") do
    if type(found) == "table" then
      found = found[name]
    elseif is(found, "cap") then
      found = request("query", found, name)
    end
    if found == nil then return nil end
  end
  return is(found, "cap") and found or nil
end

function Namespace.register(self, key, value, fab)
  expect(self, "cap", "register")
  if type(value) == "function" then value = value(self, key) end
  if value == nil then return end
  if type(value) == "string" then
    local found = resolve(value)
    if not found and value:find("/", 1, true) then fail("Could not resolve: '" .. value .. "'") end
    value = found or value
  elseif type(value) == "table" then
    if not is(fab, "cap") then
      fail("unexpected value to register in namespace (table, and no factory to make a namespace of it)")
    end
    value = ned.make_namespace(value, fab)
  end
  Namespace.__register(self, key, value)
end

Namespace.q, Namespace.r = Namespace.query, Namespace.register

-- Makes a namespace of a table; other values stay what they are.
function ned.make_namespace(content, fab)
  if type(content) ~= "table" then return content end
  local namespace = ned.cast(ned.constants.Proto.Namespace, fab:create(ned.constants.Proto.Namespace))
  ned.fill_namespace(namespace, content, fab)
  return namespace
end

function ned.fill_namespace(namespace, content, fab)
  local keys = {}
  for key in pairs(content) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do Namespace.register(namespace, key, content[key], fab) end
end

-- Others -----------------------------------------------------------------------------------------------------

local Debug_obj = {}

function Debug_obj.debug(self, number)
  expect(self, "cap", "debug")
  local result = request("debug", self, tointeger(tonumber(number)) or 0)
  return result
end

local Platform_control = {}

function Platform_control.system_suspend(self, extras)
  expect(self, "cap", "system_suspend")
  request("power", self, "suspend", tointeger(tonumber(extras)) or 0)
end

function Platform_control.system_shutdown(self, reboot)
  expect(self, "cap", "system_shutdown")
  request("power", self, "shutdown", reboot and reboot ~= 0 and 1 or 0)
end

-- Types ------------------------------------------------------------------------------------------------------

-- "L4Re::Namespace" -> "N4L4Re9NamespaceE", as C++ calls it in object files.
function ned.mangle_class(name)
  if type(name) ~= "string" then
    fail("bad argument #1 to 'mangle_class' (string expected, got " .. described(name) .. ")")
  end
  local parts, count = {}, 0
  for part in name:gmatch("[^:]+") do
    count = count + 1
    parts[count] = #part .. part
  end
  return count == 1 and parts[1] or "N" .. table.concat(parts) .. "E"
end

local types = {}        -- by mangled name: the methods
local by_protocol = {}  -- by protocol: the name

local function define(name, protocol, methods)
  types[ned.mangle_class(name)] = methods
  if protocol then by_protocol[protocol] = name end
end

define("L4::Factory", ned.constants.Proto.Factory, Factory)
define("L4Re::Mem_alloc", nil, Factory)
define("L4Re::Namespace", ned.constants.Proto.Namespace, Namespace)
define("L4Re::Debug_obj", ned.debug_protocol, Debug_obj)
define("L4::Platform_control", nil, Platform_control)

function ned.get_cap_class(id)
  if by_protocol[id] then id = ned.mangle_class(by_protocol[id]) end
  if type(id) ~= "string" then return nil end
  return types[id] or types[ned.mangle_class(id)]
end

function ned.cast(id, cap)
  if type(cap) == "function" then cap = cap() end
  if not is(cap, "cap") then return nil end
  local name = by_protocol[id] or id
  if type(name) ~= "string" or not types[ned.mangle_class(name)] then return nil end
  return (ask("cast", cap, name))
end

ned.Cap, ned.types, ned.resolve = Cap, types, resolve
ned.Class = { Factory = Factory, Namespace = Namespace, Debug_obj = Debug_obj, Platform_control = Platform_control }

-- How a capability answers when a script asks for one of its methods. One without a type is asked what it is.
function ned.method_of_cap(self, name)
  local method = Cap[name]
  if method ~= nil then return method end
  local type = host.type(self)
  if type == nil then type = request("interface", self) end
  local methods = type and types[ned.mangle_class(type)]
  return methods and methods[name]
end
