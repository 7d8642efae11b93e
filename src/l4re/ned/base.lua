-- What the other chunks share: errors that name the script's own line, and which kind of thing a value is.
-- `ned.host` are functions in Python; each returns true and its results, or false, what went wrong, and a code.
local ned = ...
local host = ned.host

local getinfo, traceback = debug.getinfo, debug.traceback
local pack, unpack = table.pack, table.unpack
local load, pcall, xpcall = load, pcall, xpcall

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

local function load_file(text, name, mode, env)
  local short = getinfo(load("", "@" .. name), "S").short_src
  if short ~= name then shortened[short] = name end
  return load(text, "@" .. name, mode or "t", env or _G)
end

local function with_whole_names(message)
  for short, name in pairs(shortened) do
    local first, last = message:find(short, 1, true)
    while first do
      message = message:sub(1, first - 1) .. name .. message:sub(last + 1)
      first, last = message:find(short, first + #name, true)
    end
  end
  return message
end

local function fail(message)
  error(where() .. message, 0)
end

-- What a factory, a namespace or a server refuses is a table, as scripts expect that look at its code.
local Refusal = { __tostring = function(self) return self.msg end }

local function refuse(why, code)
  local text = "runtime error " .. host.error_text(code) .. " (" .. code .. ")"
  error(setmetatable({ msg = where() .. text, code = code, why = why }, Refusal), 0)
end

local function ask(name, ...)
  local answer = pack(host[name](...))
  if answer[1] then return unpack(answer, 2, answer.n) end
  fail(answer[2])
end

-- The same, for what an object may refuse.
local function request(name, ...)
  local answer = pack(host[name](...))
  if answer[1] then return unpack(answer, 2, answer.n) end
  if answer[3] == nil then fail(answer[2]) end
  refuse(answer[2], answer[3])
end

local function warn(message)
  host.warn(where() .. message)
end

local function is(value, kind)
  return type(value) == "userdata" and host.kind(value) == kind
end

local names = { cap = "L4::Cap", task = "L4::Task" }

local function described(value)
  return type(value) == "userdata" and names[host.kind(value)] or type(value)
end

local function expect(value, kind, method)
  if not is(value, kind) then
    fail("bad argument #1 to '" .. method .. "' (" .. names[kind] .. " expected, got " .. described(value) .. ")")
  end
end

-- Makes an error a string with a position. What pcall returns stays as it is; this is for what nobody caught.
local function explain(problem)
  if type(problem) == "string" then
    local ours = problem:match("^l4:%d+: ()") -- what Lua's own functions say of the wrappers around them
    return with_whole_names(ours and where() .. problem:sub(ours) or problem)
  end
  if type(problem) == "table" and problem.msg ~= nil then
    local why = problem.why ~= nil and ": " .. tostring(problem.why) or ""
    return with_whole_names(tostring(problem.msg) .. why)
  end
  if type(problem) == "userdata" then return where() .. host.describe(problem) end
  return where() .. "error value: " .. tostring(problem)
end

-- The script's part of the stack, the innermost call first.
local function stack()
  local lines = {}
  for line in traceback("", 2):gmatch("[^\n]+") do
    if not line:find("^%s*l4:") and not line:find("^%s*%[C%]: in %?$") and not line:find("^stack traceback") then
      lines[#lines + 1] = with_whole_names((line:gsub("^%s+", "")))
    end
  end
  return table.concat(lines, "\n")
end

-- Runs a chunk: true and its results, or false, the message, the stack.
local function run(chunk, ...)
  return xpcall(chunk, function(problem) ned.stack = stack() return explain(problem) end, ...)
end

-- Runs a handler, whose mistake is told and passed over.
local function attempt(handler, ...)
  local ok, message = run(handler, ...)
  if not ok then host.complain(message) end
end

ned.where, ned.load_file, ned.with_whole_names = where, load_file, with_whole_names
ned.fail, ned.ask, ned.request, ned.warn = fail, ask, request, warn
ned.is, ned.described, ned.expect = is, described, expect
ned.run, ned.attempt, ned.pcall, ned.xpcall = run, attempt, pcall, xpcall
