-- The module L4 as scripts see it. Everything a script calls is a Lua function here, so that type() tells the
-- truth and an error names the script's own line; `host` are the Python functions below, each of which returns
-- true and its results, or false and what went wrong.
local host, constants, environment = ...

local getinfo, traceback = debug.getinfo, debug.traceback
local pack, unpack, concat, sort = table.pack, table.unpack, table.concat, table.sort

-- The first line of the stack that is the script's: "file:line: ".
local function where()
  local level = 2
  while true do
    local info = getinfo(level, "Sl")
    if not info then return "" end
    if info.source ~= "=l4" and info.currentline > 0 then
      return info.source:sub(2) .. ":" .. info.currentline .. ": "
    end
    level = level + 1
  end
end

-- Lua shortens long file names in its messages; people want to open the file.
local shortened = {}

local function load_file(text, name)
  local short = getinfo(load("", "@" .. name), "S").short_src
  if short ~= name then shortened[short] = name end
  return load(text, "@" .. name, "t")
end

local function with_whole_names(message)
  for short, name in pairs(shortened) do
    local first, last = message:find(short, 1, true)
    if first then
      message = message:sub(1, first - 1) .. name .. message:sub(last + 1)
    end
  end
  return message
end

local function fail(message)
  error(where() .. message, 0)
end

local function ask(name, ...)
  local answer = pack(host[name](...))
  if answer[1] then return unpack(answer, 2, answer.n) end
  fail(answer[2])
end

local function is(value, kind)
  return type(value) == "userdata" and host.kind(value) == kind
end

local function described(value)
  return is(value, "cap") and "L4::Cap" or is(value, "task") and "L4::Task" or value == nil and "nil" or type(value)
end

local function expect(value, kind, method)
  if not is(value, kind) then
    local wanted = kind == "cap" and "L4::Cap" or "L4::Task"
    fail("bad argument #1 to '" .. method .. "' (" .. wanted .. " expected, got " .. described(value) .. ")")
  end
end

-- Capabilities ---------------------------------------------------------------------------------------------

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

-- Tasks ----------------------------------------------------------------------------------------------------

local Task = {}
local handlers = {}

-- Makes an error a string with a position. What pcall returns stays as it is; this is for what nobody caught.
local function explain(problem)
  if type(problem) == "string" then return with_whole_names(problem) end
  if type(problem) == "table" and problem.msg ~= nil then return with_whole_names(tostring(problem.msg)) end
  if type(problem) == "userdata" then return where() .. host.describe(problem) end
  return where() .. "error value: " .. tostring(problem)
end

local function fire(number, code)
  local handler = handlers[number]
  handlers[number] = nil
  if handler then
    local ok, message = pcall(handler, code)
    if not ok then host.complain(explain(message)) end
  end
end

function Task.state(self)
  expect(self, "task", "state")
  return host.state(self)
end

function Task.exit_code(self)
  expect(self, "task", "exit_code")
  return host.exit_code(self)
end

function Task.wait(self)
  expect(self, "task", "wait")
  local number, code = ask("wait", self)
  if number then fire(number, code) end
  return code
end

function Task.kill(self)
  expect(self, "task", "kill")
  local number, result, code = ask("kill", self)
  if number then fire(number, code) end
  return result
end

function Task.exit_handler(self, handler)
  expect(self, "task", "exit_handler")
  if type(handler) ~= "function" then
    fail("bad argument #2 to 'exit_handler' (function expected, got " .. described(handler) .. ")")
  end
  local number, ended, code = ask("number", self)
  if handlers[number] then fail("exit_handler callback already registered") end
  if ended then
    handler(code)
    return false
  end
  handlers[number] = handler
  return true
end

-- The loader -----------------------------------------------------------------------------------------------

local Loader = {}
Loader.__index = Loader

-- What upstream's programs read and Linux has no use for, and what needs services that are not here.
local ignored = { l4re_dbg = true, ldr_flags = true, base = true, itas_base = true, l4re_loader = true, ns = true,
                  ldr_base = true }
local services = { mem = true, factory = true, scheduler = true, rm_fab = true, dbg_events = true }

local function is_loader(value)
  if type(value) ~= "table" or getmetatable(value) ~= Loader then fail("method called with incompatible object") end
end

local function capabilities(caps)
  local names, handles = {}, {}
  if caps == nil then return names, handles end
  if type(caps) ~= "table" then fail("caps is a table of names and capabilities, not a " .. described(caps)) end
  local plain = {}
  for name in pairs(caps) do
    if type(name) ~= "string" then
      fail("caps is a table of names and capabilities, as in { name = capability }; there is an entry " ..
           tostring(name) .. " without a name")
    end
    plain[#plain + 1] = name
  end
  sort(plain)
  for _, name in ipairs(plain) do
    local value = caps[name]
    if type(value) == "function" then value = value(caps) end
    if is(value, "cap") then
      if #name > 16 then fail("Capability name '" .. name .. "' too long (at most 16 bytes)") end
      names[#names + 1], handles[#handles + 1] = name, value
    elseif type(value) == "table" then
      fail("caps." .. name .. ": a table would become a namespace, and there are none here")
    end
  end
  return names, handles
end

local function log_words(log)
  if type(log) == "function" then log = log() end
  if log == nil then return nil end
  if is(log, "cap") then fail("log = capability: here a log is a table { tag, colour }") end
  if type(log) ~= "table" then fail("log is a table { tag, colour }, not a " .. described(log)) end
  local tag, colour = log[1], log[2]
  if tag ~= nil and type(tag) ~= "string" and type(tag) ~= "number" then
    fail("the tag of a log is a string, not a " .. described(tag))
  end
  if colour ~= nil and type(colour) ~= "string" and type(colour) ~= "number" then
    fail("the colour of a log is a string or a number, not a " .. described(colour))
  end
  return tag ~= nil and tostring(tag) or nil, colour
end

local function variables(posix_env)
  local keys, values = {}, {}
  for key, value in pairs(posix_env or {}) do
    if type(key) ~= "string" or (type(value) ~= "string" and type(value) ~= "number") then
      fail("the environment of a program is a table of strings; " .. tostring(key) .. " is a " .. described(value))
    end
    keys[#keys + 1], values[#values + 1] = key, tostring(value)
  end
  return keys, values
end

local function start(env, words, posix_env)
  if type(env) ~= "table" then
    fail("a program is described by a table { caps = ..., log = ... }, not a " .. described(env))
  end
  for field, value in pairs(env) do
    if services[field] then
      fail("field '" .. field .. "': this service is not available here")
    elseif field == "l4re_dbg" and type(value) ~= "number" then
      fail("l4re_dbg is a number such as L4.Dbg.Warn, not a " .. described(value))
    elseif field ~= "caps" and field ~= "log" and not ignored[field] then
      fail("unknown field '" .. tostring(field) .. "' in the description of a program (caps, log, l4re_dbg)")
    end
  end
  local names, handles = capabilities(env.caps)
  local tag, colour = log_words(env.log)
  local keys, values = variables(posix_env)
  local task = ask("start", words, names, handles, tag, colour, keys, values)
  return task
end

local function program_word(word)
  if type(word) ~= "string" or not word:find("%S") then
    fail("a program is named by a string such as 'rom/hello', not " ..
         (type(word) == "string" and "an empty one" or "a " .. described(word)))
  end
end

function Loader.new(fields)
  if type(fields) ~= "table" then fail("Loader.new takes a table") end
  for field in pairs(fields) do
    fail("Loader.new: the option '" .. tostring(field) .. "' is not available here")
  end
  return setmetatable(fields, Loader)
end

function Loader.new_channel(self)
  is_loader(self)
  local channel = ask("new_channel")
  return channel
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
  return self:startv(env, Loader.split_args(command, posix_env))
end

function Loader.startv(self, env, ...)
  is_loader(self)
  local given, words, posix_env = pack(...), {}, nil
  for at = 1, given.n do
    local word = given[at]
    if type(word) == "table" and at == given.n and at > 1 then
      posix_env = word
    elseif type(word) == "string" or type(word) == "number" then
      words[#words + 1] = tostring(word)
    elseif word ~= nil then
      fail("bad argument #" .. at + 1 .. " to 'startv' (string expected, got " .. described(word) .. ")")
    end
  end
  program_word(words[1])
  local task = start(env, words, posix_env)
  return task
end

-- The module -----------------------------------------------------------------------------------------------

local L4 = { Loader = Loader, Env = environment, default_loader = Loader.new({}) }
for name, numbers in pairs(constants) do L4[name] = numbers end

setmetatable(L4, { __index = function(_, name)
  local names = {}
  for known in pairs(L4) do names[#names + 1] = known end
  sort(names)
  fail("L4." .. tostring(name) .. " is not available here; there are " .. concat(names, ", "))
end })

package.loaded.L4 = L4
_G.L4 = L4

-- What scripts find in place of Lua's own ------------------------------------------------------------------

function print(...)
  local words = pack(...)
  for at = 1, words.n do words[at] = tostring(words[at]) end
  ask("print", concat(words, "\t"))
end

-- Catching errors is the script's business, except when the run is to end.
local function unless_stopped(ok, ...)
  if not ok and host.stopped() then error((...), 0) end
  return ok, ...
end

local lua_pcall, lua_xpcall = pcall, xpcall
function pcall(...) return unless_stopped(lua_pcall(...)) end
function xpcall(...) return unless_stopped(lua_xpcall(...)) end

local function find_module(name)
  local tried = {}
  for template in package.path:gmatch("[^;]+") do
    local path = template:gsub("%?", (name:gsub("%.", "/"):gsub("%%", "%%%%")))
    local text, chunk_name = ask("read_module", path)
    if text then
      local chunk, message = load_file(text, chunk_name)
      if not chunk then
        fail("error loading module '" .. name .. "' from file '" .. chunk_name .. "':\n\t" .. message)
      end
      return chunk, chunk_name
    end
    tried[#tried + 1] = "no file '" .. path .. "'"
  end
  return concat(tried, "\n\t")
end

package.path = "./?.lua;rom/?.lua"
package.cpath = ""
package.searchers = { package.searchers[1], find_module }
math, os, coroutine, utf8 = nil, nil, nil, nil
for _, name in ipairs({ "math", "os", "coroutine", "utf8" }) do package.loaded[name] = nil end
io.stdout:setvbuf("no")

-- For the host ---------------------------------------------------------------------------------------------

local shared = debug.getmetatable(environment.__probe)
environment.__probe = nil
shared.__eq = function(a, b) return host.compare(a, b) == 0 end
shared.__lt = function(a, b) return host.compare(a, b) < 0 end
shared.__le = function(a, b) return host.compare(a, b) <= 0 end

local function run(text, name, arguments)
  local chunk, message = load_file(text, name)
  if not chunk then return false, with_whole_names(message) end
  debug.sethook(function() host.tick() end, "", 100000)
  return lua_xpcall(chunk, explain, unpack(arguments))
end

return { run = run, fire = fire, cap = Cap, task = Task }
