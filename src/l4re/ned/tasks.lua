-- Tasks: what a script knows of a program it started.
local ned = ...
local ask, fail, expect, described = ned.ask, ned.fail, ned.expect, ned.described
local host = ned.host

local Task = {}
local handlers = {}

-- Runs the exit handler of a program, once.
function ned.fire(number, code)
  local handler = handlers[number]
  handlers[number] = nil
  if handler then ned.attempt(handler, code) end
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
  if number then ned.fire(number, code) end
  return code
end

function Task.kill(self)
  expect(self, "task", "kill")
  local number, result, code = ask("kill", self)
  if number then ned.fire(number, code) end
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

ned.Task = Task
