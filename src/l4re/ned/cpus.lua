-- Sets of CPUs, for schedulers.
local ned = ...
local fail, described = ned.fail, ned.described
local tointeger = math.tointeger

local BITS = 64
local Cpu_set = {}
Cpu_set.__index = Cpu_set

local function is_set(value)
  return type(value) == "table" and getmetatable(value) == Cpu_set
end

local function expect_set(value)
  if not is_set(value) then fail("method called with incompatible object") end
end

local function add(set, what)
  local cpu = type(what) == "number" and tointeger(what)
  if cpu then
    if cpu < 0 then fail("Invalid CPU range \"" .. cpu .. "\"") end
    set.cpus[cpu] = true
  elseif type(what) == "string" then
    local first, last = what:match("^%s*(%d+)%s*%-%s*(%d+)%s*$")
    first, last = tointeger(tonumber(first)), tointeger(tonumber(last))
    if not first or not last or first > last or last >= 1 << 16 then fail("Invalid CPU range \"" .. what .. "\"") end
    for each = first, last do set.cpus[each] = true end
  else
    fail("Invalid argument type: " .. described(what))
  end
end

local function empty()
  return setmetatable({ all = false, cpus = {} }, Cpu_set)
end

-- new(): all CPUs; new(3), new("0-3"), new{"0-3", 42}: these.
function Cpu_set.new(self, what)
  local set = empty()
  if what == nil then
    set.all = true
  elseif type(what) == "table" then
    for _, each in ipairs(what) do add(set, each) end
  else
    add(set, what)
  end
  return set
end

function Cpu_set.add(self, what)
  expect_set(self)
  add(self, what)
  return self
end

local function sorted(set)
  local cpus = {}
  for cpu in pairs(set.cpus) do cpus[#cpus + 1] = cpu end
  table.sort(cpus)
  return cpus
end

-- One mask for each 64 CPUs; nothing for all of them.
function Cpu_set.factory_args(self)
  expect_set(self)
  if self.all then return end
  local cpus = sorted(self)
  local masks = {}
  for at = 1, (cpus[#cpus] or 0) // BITS + 1 do masks[at] = 0 end
  for _, cpu in ipairs(cpus) do
    local at = cpu // BITS + 1
    masks[at] = masks[at] | 1 << cpu % BITS
  end
  return table.unpack(masks)
end

function Cpu_set.__bor(a, b)
  expect_set(a)
  expect_set(b)
  local set = empty()
  set.all = a.all or b.all
  for _, one in ipairs({ a, b }) do
    for cpu in pairs(one.cpus) do set.cpus[cpu] = true end
  end
  return set
end

function Cpu_set.__band(a, b)
  expect_set(a)
  expect_set(b)
  local set = empty()
  set.all = a.all and b.all
  for cpu in pairs(a.all and b.cpus or a.cpus) do
    set.cpus[cpu] = (a.all or b.all or b.cpus[cpu]) and true or nil
  end
  return set
end

function Cpu_set.__tostring(self)
  if self.all then return "{ all }" end
  return "{" .. table.concat(sorted(self), ", ") .. "}"
end

ned.Cpu_set, ned.is_cpu_set = Cpu_set, is_set
