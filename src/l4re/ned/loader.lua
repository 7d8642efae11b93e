-- Loaders and the description of a program: from a script's tables to what the world is to start.
local ned = ...
local ask, fail, warn, is, described = ned.ask, ned.fail, ned.warn, ned.is, ned.described
local Proto, environment = ned.constants.Proto, ned.environment
local host = ned.host
local pack, unpack, sort = table.pack, table.unpack, table.sort

local Loader, App_env = {}, {}
Loader.__index, App_env.__index = Loader, App_env

local function is_loader(value)
  if type(value) ~= "table" or getmetatable(value) ~= Loader then fail("method called with incompatible object") end
end

local function is_app_env(value)
  if type(value) ~= "table" or getmetatable(value) ~= App_env then
    fail("method called with incompatible object (a description of a program serves for one start)")
  end
end

local function program_word(word)
  if type(word) ~= "string" or not word:find("%S") then
    fail("a program is named by a string such as 'rom/hello', not " ..
         (type(word) == "string" and "an empty one" or "a " .. described(word)))
  end
end

-- The description of a program -------------------------------------------------------------------------------

local services = { "mem", "factory", "scheduler", "rm_fab", "dbg_events" }
local numbers = { "l4re_dbg", "ldr_flags", "base", "itas_base" }
local known = {
  caps = true, log = true, log_args = true, made_log = true, loader = true, l4re_loader = true, ns = true, ldr_base = true,
}
for _, list in ipairs({ services, numbers }) do
  for _, field in ipairs(list) do known[field] = true end
end

-- Helper modules keep fields of their own beside ours; in a run only those are told that look like a slip.
local function tell_unknown_fields(env)
  for field in pairs(env) do
    local meant = not known[field] and type(field) == "string" and host.meant(field, known)
    if meant or not known[field] and host.only_planned() then
      warn("unknown field '" .. tostring(field) .. "' in the description of a program is ignored" ..
           (meant and "; is it '" .. meant .. "'?" or ""))
    end
  end
end

-- A script may give a function in place of a value.
local function called(value, ...)
  while type(value) == "function" do value = value(...) end
  return value
end

local function capabilities(env)
  local names, handles, plain = {}, {}, {}
  local caps = env.caps
  if caps == nil then return names, handles end
  if type(caps) ~= "table" then fail("caps is a table of names and capabilities, not a " .. described(caps)) end
  for name in pairs(caps) do
    if type(name) ~= "string" then
      fail("caps is a table of names and capabilities, as in { name = capability }; there is an entry " ..
           tostring(name) .. " without a name")
    end
    plain[#plain + 1] = name
  end
  sort(plain)
  for _, name in ipairs(plain) do
    local value = called(caps[name], caps)
    if type(value) == "table" then value = env.loader:create_namespace(value) end
    if is(value, "cap") then
      if #name > 16 then fail("Capability name '" .. name .. "' too long (at most 16 bytes)") end
      names[#names + 1], handles[#handles + 1] = name, value
    elseif type(value) == "string" or type(value) == "number" then
      warn("caps." .. name .. " is a " .. type(value) .. ", no capability: the program does not get it")
    end
  end
  return names, handles
end

local function services_of(env)
  local names, handles = {}, {}
  for _, field in ipairs(services) do
    local value = called(env[field], env)
    if value ~= nil then
      if not is(value, "cap") then fail("error: capability expected '" .. field .. "'") end
      names[#names + 1], handles[#handles + 1] = field, value
    end
  end
  return names, handles
end

local function numbers_of(env)
  local found = {}
  for _, field in ipairs(numbers) do
    local value = env[field]
    if value ~= nil then
      if type(value) ~= "number" then
        fail(field .. " is a number" .. (field == "l4re_dbg" and " such as L4.Dbg.Warn" or "") .. ", not a " .. described(value))
      end
      found[field] = value
    end
  end
  if env.l4re_loader ~= nil then
    program_word(env.l4re_loader)
    found.l4re_loader = env.l4re_loader
  end
  return found
end

local function variables(posix_env)
  local keys, values = {}, {}
  for key in pairs(posix_env or {}) do keys[#keys + 1] = key end
  sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for at, key in ipairs(keys) do
    local value = posix_env[key]
    if type(key) ~= "string" or (type(value) ~= "string" and type(value) ~= "number") then
      fail("the environment of a program is a table of strings; " .. tostring(key) .. " is a " .. described(value))
    end
    values[at] = tostring(value)
  end
  return keys, values
end

-- Its log: made by the loader's factory, for the program whose words these are.
local function make_log(env, program)
  local entries = env.log_args or {}
  local count = 0
  for at in pairs(entries) do
    if type(at) == "number" and at > count then count = at end
  end
  for at = 1, count do
    local entry = entries[at]
    if entry ~= nil and type(entry) ~= "string" and type(entry) ~= "number" then
      local what = at == 1 and "the tag of a log is a string" or at == 2 and "the colour of a log is a string or a number"
        or "the options of a log are strings"
      fail(what .. ", not a " .. described(entry))
    end
  end
  local words = { unpack(entries, 1, count) }
  if words[1] == nil then words[1] = program and program:match("[^/]*$") or "" end
  local fab = called(env.loader.log_fab, env)
  if not is(fab, "cap") then fail("Starting an application without valid log factory") end
  return fab:create(Proto.Log, unpack(words, 1, count > 0 and count or 1))
end

-- argv and a table of environment variables at its end.
local function words_of(method, ...)
  local given, words, posix_env = pack(...), {}, nil
  for at = 1, given.n do
    local word = given[at]
    if type(word) == "table" and at == given.n and at > 1 then
      posix_env = word
    elseif type(word) == "string" or type(word) == "number" then
      words[#words + 1] = tostring(word)
    elseif word ~= nil then
      fail("bad argument #" .. at + 1 .. " to '" .. method .. "' (string expected, got " .. described(word) .. ")")
    end
  end
  program_word(words[1])
  return words, posix_env
end

-- Starts a program in the environment `env`, with no capability but those that stand there.
local function exec(env, ...)
  if type(env) ~= "table" then
    fail("a program is described by a table { caps = ..., log = ... }, not a " .. described(env))
  end
  if getmetatable(env) ~= App_env then App_env.new(env) end
  local words, posix_env = words_of("exec", ...)
  tell_unknown_fields(env)
  local names, handles = capabilities(env)
  local fields, given = services_of(env)
  local keys, values = variables(posix_env)
  local log = rawget(env, "log") or env.made_log or make_log(env, words[1])
  local task = ask("start", words, names, handles, log, fields, given, keys, values, numbers_of(env))
  return task
end

function App_env.new(env)
  if env == nil then env = {} end
  if type(env) ~= "table" then
    fail("a program is described by a table { caps = ..., log = ... }, not a " .. described(env))
  end
  local loader = env.loader or ned.default_loader
  local log = env.log
  if type(log) == "function" then log = log() end
  if log ~= nil and type(log) ~= "table" and not is(log, "cap") then
    fail("log is a table { tag, colour } or a capability, not a " .. described(log))
  end
  env.loader = loader
  if type(log) == "table" then env.log, env.log_args = nil, log else env.log = log end
  for _, field in ipairs({ "rm_fab", "factory", "dbg_events", "mem" }) do
    if env[field] == nil then env[field] = loader[field] end
  end
  return setmetatable(env, App_env)
end

-- Returns the log of the program; it is made when it is first asked for.
function App_env.log(self)
  is_app_env(self)
  self.made_log = rawget(self, "log") or self.made_log or make_log(self)
  return self.made_log
end

function App_env.start(self, ...)
  is_app_env(self)
  local task = exec(self, ...)
  return task
end

function App_env.set_ns(self, namespace)
  is_app_env(self)
  self.ns = namespace
end

function App_env.set_loader_fab(self, fab)
  is_app_env(self)
  self.loader = fab
end

function App_env.set_mem_alloc(self, mem)
  is_app_env(self)
  self.mem = mem
end

-- Loaders ----------------------------------------------------------------------------------------------------

function Loader.new(fields)
  if type(fields) ~= "table" then fail("Loader.new takes a table") end
  local base = fields.loader or fields.mem
  if fields.factory == nil then fields.factory = environment.factory end
  for _, field in ipairs({ "log_fab", "ns_fab", "rm_fab", "sched_fab" }) do
    if fields[field] == nil then fields[field] = base end
  end
  return setmetatable(fields, Loader)
end

function Loader.new_channel(self)
  is_loader(self)
  local fab = called(self.factory)
  if not is(fab, "cap") then fail("this loader has no factory that could make a channel") end
  local channel = fab:create(Proto.Ipc_gate)
  return channel
end

function Loader.create_namespace(self, content, fab)
  is_loader(self)
  fab = called(fab or self.ns_fab)
  if type(content) == "table" and not is(fab, "cap") then
    fail("this loader has no factory that could make a namespace")
  end
  local namespace = ned.make_namespace(content, fab)
  return namespace
end

function Loader.fill_namespace(self, namespace, content, fab)
  is_loader(self)
  ned.fill_namespace(namespace, content, called(fab or self.ns_fab))
end

function Loader.split_args(command, posix_env)
  program_word(command)
  local words = {}
  for word in command:gmatch("%S+") do words[#words + 1] = word end
  if posix_env ~= nil then words[#words + 1] = posix_env end
  return unpack(words)
end

function Loader.start(self, env, command, posix_env)
  is_loader(self)
  program_word(command)
  local task = self:startv(env, Loader.split_args(command, posix_env))
  return task
end

function Loader.startv(self, env, ...)
  is_loader(self)
  if type(env) ~= "table" then
    fail("a program is described by a table { caps = ..., log = ... }, not a " .. described(env))
  end
  words_of("startv", ...)
  if env.caps == nil then env.caps = {} end
  local caps = env.caps
  if type(caps) ~= "table" then fail("caps is a table of names and capabilities, not a " .. described(caps)) end
  for name, value in pairs(caps) do
    if type(value) == "table" and not getmetatable(value) then caps[name] = self:create_namespace(value) end
  end
  local rom = environment.rom
  for name, cap in pairs(self.default_caps or (rom and { rom = rom:m("r") } or {})) do
    if caps[name] == nil then caps[name] = cap end
  end
  if env.l4re_dbg == nil then env.l4re_dbg = ned.constants.Dbg.Warn end
  if env.loader == nil then env.loader = self end
  local task = App_env.new(env):start(...)
  return task
end

-- A scheduler for some CPUs and a range of priorities.
function Loader.create_sched_proxy(self, wanted)
  is_loader(self)
  if type(wanted) ~= "table" then fail("create_sched_proxy takes a table, not a " .. described(wanted)) end
  local cpus = wanted.cpus
  if cpus ~= nil and not ned.is_cpu_set(cpus) then fail("cpus is an L4.Cpu_set, not a " .. described(cpus)) end
  local offset = wanted.prio_offset or 0
  local limit = wanted.prio_limit or offset + 10
  local fab = called(wanted.fab or self.sched_fab)
  if not is(fab, "cap") then fail("this loader has no factory that could make a scheduler") end
  local scheduler = fab:create(Proto.Scheduler, limit, offset, (cpus or ned.Cpu_set:new()):factory_args())
  return scheduler
end

-- Starts what prints the stacks of programs that fail; later starts of this loader speak to it.
function Loader.start_backtracer(self, wanted)
  is_loader(self)
  wanted = wanted or {}
  local channel = self:new_channel()
  local task = self:startv({ caps = { svr = channel:svr() } }, wanted.prog or "rom/backtracer", unpack(wanted.args or {}))
  self.dbg_events = channel
  return task
end

ned.Loader, ned.App_env, ned.exec = Loader, App_env, exec
ned.default_loader = Loader.new({ mem = environment.mem_alloc })
