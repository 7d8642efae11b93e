-- What scripts find in place of Lua's own, and what those expect that were written for an older Lua.
local ned = ...
local ask, fail, load_file = ned.ask, ned.fail, ned.load_file
local host = ned.host
local pack, concat, getinfo, getupvalue, setupvalue = table.pack, table.concat, debug.getinfo, debug.getupvalue, debug.setupvalue

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

function pcall(...) return unless_stopped(ned.pcall(...)) end
function xpcall(...) return unless_stopped(ned.xpcall(...)) end

-- What was compiled elsewhere is not run: Lua does not check it.
local lua_load = load
function load(chunk, name, mode, ...) return lua_load(chunk, name, "t", ...) end

-- Files: "rom/x" lies in the folders of the rom -------------------------------------------------------------

function loadfile(path, mode, env)
  local text, name = ask("read_module", path)
  if not text then return nil, "cannot open " .. tostring(path) .. ": No such file or directory" end
  return load_file(text, name, mode, env)
end

function dofile(path)
  local chunk, message = loadfile(path)
  if not chunk then fail(ned.with_whole_names(message)) end
  return chunk()
end

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
package.loadlib, io.popen = nil, nil
math, os, coroutine, utf8 = nil, nil, nil, nil
for _, name in ipairs({ "math", "os", "coroutine", "utf8" }) do package.loaded[name] = nil end
io.stdout:setvbuf("no")

if host.only_planned() then -- nothing is written but to the standard error output, and every plan of a script is the same
  local lua_pairs, order = pairs, { number = 1, string = 2 }
  local function before(a, b)
    local one, other = type(a), type(b)
    if one == other and order[one] then return a < b end
    return (order[one] or 3) < (order[other] or 3)
  end
  function pairs(t)
    local meta = getmetatable(t)
    if type(t) ~= "table" or meta and meta.__pairs then return lua_pairs(t) end
    local keys = {}
    for key in lua_pairs(t) do keys[#keys + 1] = key end
    table.sort(keys, before)
    local at = 0
    return function()
      local key, value
      repeat
        at = at + 1
        key = keys[at]
        if key ~= nil then value = rawget(t, key) end
      until key == nil or value ~= nil -- what was removed meanwhile is passed over
      return key, value
    end, t, nil
  end

  local open = io.open
  function io.open(path, mode)
    if mode ~= nil and mode ~= "r" and mode ~= "rb" then return nil, tostring(path) .. ": no file is written here", 1 end
    return open(path, mode)
  end
  io.output(io.stderr)
  io.stdout = io.stderr
  io.output, io.tmpfile = function() return io.stderr end, nil
end

-- Older scripts ----------------------------------------------------------------------------------------------

unpack = table.unpack

-- What a module returns or makes of itself is a global of its name, too.
local lua_require = require
function require(name)
  local module, from = lua_require(name)
  if type(name) == "string" and name:find("^[%a_][%w_]*$") and type(module) == "table" and _G[name] == nil then
    _G[name] = module
  end
  return module, from
end

function package.seeall(module)
  local meta = getmetatable(module) or {}
  meta.__index = _G
  setmetatable(module, meta)
end

-- module(name, ...): from here on the globals of the calling file are the fields of a table of that name.
function module(name, ...)
  local caller = getinfo(2, "f").func
  local made = package.loaded[name]
  if type(made) ~= "table" then
    local within = _G
    for part in name:gmatch("([^.]+)%.") do
      if type(within[part]) ~= "table" then within[part] = {} end
      within = within[part]
    end
    local last = name:match("[^.]+$")
    if type(within[last]) ~= "table" then within[last] = {} end
    made = within[last]
    package.loaded[name] = made
  end
  made._M, made._NAME, made._PACKAGE = made, name, name:match("^(.*%.)[^.]*$") or ""
  for _, change in ipairs({ ... }) do change(made) end
  local at = 1
  while true do
    local upvalue = getupvalue(caller, at)
    if upvalue == "_ENV" then
      setupvalue(caller, at, made)
      return
    end
    if not upvalue then return end
    at = at + 1
  end
end
