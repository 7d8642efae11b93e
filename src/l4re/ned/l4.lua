-- The module L4 as scripts see it. Everything a script calls is a Lua function, so that type() tells the truth and an
-- error names the script's own line.
local ned = ...
local host, environment = ned.host, ned.environment
local ask, request, fail, is, described = ned.ask, ned.request, ned.fail, ned.is, ned.described

local L4 = {
  Env = environment, Loader = ned.Loader, App_env = ned.App_env, Cpu_set = ned.Cpu_set, Class = ned.Class,
  default_loader = ned.default_loader,
  cast = ned.cast, mangle_class = ned.mangle_class, get_cap_class = ned.get_cap_class, exec = ned.exec,
  __cast = function(name, cap) return ned.cast(name, cap) end, _CAP_TYPES = ned.types,
}
for name, numbers in pairs(ned.constants) do L4[name] = numbers end

L4.Info = {
  arch = function() return ned.machine.arch end,
  platform = function() return ned.machine.platform end,
  mword_bits = function() return ned.machine.bits end,
  Kip = { str = function() return ned.machine.kernel end },
}

local function pause(value, unit, seconds)
  if type(value) ~= "number" then return end
  ask("print", "Ned: Sleeping " .. tostring(value) .. unit)
  ask("sleep", value * seconds)
end

function L4.sleep(seconds) pause(seconds, "s", 1) end
function L4.msleep(milliseconds) pause(milliseconds, "ms", 0.001) end

-- Serves `execute(text)` on a channel, and does not return.
function L4.server_loop(channel)
  if not is(channel, "cap") then
    fail("bad argument #1 to 'server_loop' (L4::Cap expected, got " .. described(channel) .. ")")
  end
  request("serve", channel)
end

package.loaded.L4 = L4
_G.L4 = L4

-- For the host ---------------------------------------------------------------------------------------------

-- Capabilities and tasks come from Python and are userdata; how they behave is said here.
local shared = debug.getmetatable(host.kind)
local Task, method_of_cap = ned.Task, ned.method_of_cap
shared.__name = nil
shared.__eq = function(a, b) return host.compare(a, b) == 0 end
shared.__lt = function(a, b) return host.compare(a, b) < 0 end
shared.__le = function(a, b) return host.compare(a, b) <= 0 end
shared.__tostring = function(self) return host.text(self) end
shared.__index = function(self, name)
  local kind = host.kind(self)
  if kind == "cap" then return method_of_cap(self, name) end
  return kind == "task" and Task[name] or nil
end
shared.__newindex = function(self, name) fail("cannot set '" .. tostring(name) .. "' of a " .. host.kind(self)) end

local function run(text, name, arguments)
  local chunk, message = ned.load_file(text, name)
  if not chunk then return false, ned.with_whole_names(message), "" end
  debug.sethook(function() host.tick() end, "", 100000)
  local ok, problem = ned.run(chunk, table.unpack(arguments))
  return ok, problem, ned.stack
end

-- Runs what came over the channel of `server_loop`: a code, and what to show.
local function execute(text)
  local chunk, message = load(text, text, "t")
  if not chunk then return -22, message end
  local ok, result = ned.run(chunk)
  if not ok then return -5, result end
  return 0, result == nil and "" or tostring(result)
end

return { run = run, fire = ned.fire, execute = execute }
