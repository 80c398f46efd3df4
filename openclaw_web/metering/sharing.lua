-- Takes over what a process says of its meters, adds up what all say, and grants leases near the limit.
-- KEYS: the epoch's, then one for each meter. ARGV[1]: `_Message` of sharing.py. Answers with its `_Reply`.

local message = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local alive = message.alive_ms

local function live_processes()
  local found = {}
  for _, channel in ipairs(redis.call('PUBSUB', 'CHANNELS', message.channel .. '*')) do
    found[#found + 1] = {channel, string.sub(channel, #message.channel + 1)}
  end
  return found
end

-- The epoch. After a start of Redis everybody has to connect again first: hence the uptime.
local server = redis.call('INFO', 'server')
local run = string.match(server, 'run_id:(%w+)')
local known = redis.call('HMGET', KEYS[1], 'id', 'run', 'opened', 'from', 'ready', 'anew')
local epoch, opened, from, ready = known[1], tonumber(known[3]), tonumber(known[4]), known[5]
if not epoch or known[2] ~= run or message.forgets_totals then
  local uptime = tonumber(string.match(server, 'uptime_in_seconds:(%d+)')) * 1000
  opened, from, ready = now, now, false
  if known[2] ~= run and (epoch or uptime < message.reconnect_ms) then
    from = now + message.reconnect_ms
  end
  epoch = message.next_epoch
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'id', epoch, 'run', run, 'opened', opened, 'from', from)
  known[6] = message.forgets_totals
  if known[6] then redis.call('HSET', KEYS[1], 'anew', 1) end
  for _, one in ipairs(live_processes()) do redis.call('PUBLISH', one[1], epoch) end
end
if epoch ~= message.epoch then
  return cjson.encode({epoch = epoch, forgets_totals = known[6] and true or false})
end
if not ready then
  if message.registers then redis.call('HSET', KEYS[1], 'r:' .. message.process, 1) end
  ready = now >= from
  if ready and now - opened < alive then
    for _, one in ipairs(live_processes()) do
      if redis.call('HEXISTS', KEYS[1], 'r:' .. one[2]) == 0 then ready = false end
    end
  end
  if ready then redis.call('HSET', KEYS[1], 'ready', 1) end
end

local mine, own_lease = 'p:' .. message.process, 'l:' .. message.process .. ':'

-- Write what the process says of one meter. A message that was overtaken changes nothing.
local function take_over(key, said)
  local before = redis.call('HGET', key, mine)
  if before and tonumber(string.match(before, '^%d+')) > message.number then return false end
  redis.call('HSET', key, mine, string.format('%.0f %.0f %.0f %.0f %.0f %.0f',
    message.number, now + alive, said.unwritten, said.underway, said.requests, said.minute))
  local base = tonumber(redis.call('HGET', key, 'base') or -1)
  if said.base > base then redis.call('HSET', key, 'base', string.format('%.0f', said.base)) end
  if said.is_sure then redis.call('HSET', key, 'sure', 1) end
  for _, lease in ipairs(said.ended) do redis.call('HDEL', key, 'l:' .. lease) end
  for _, lease in ipairs(said.renewed) do
    redis.call('HSET', key, 'l:' .. lease[1], string.format('%.0f %.0f', lease[2], now + alive))
  end
  redis.call('PEXPIRE', key, message.keep_ms)
  return true
end

-- Add up what all processes say; what has expired is deleted.
local function add_up(key)
  local sum = {base = 0, sure = false, unwritten = 0, certain = 0, underway = 0,
    others_unwritten = 0, others_underway = 0, others_requests = 0, others_minute = 0}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local kind = string.sub(name, 1, 2)
    if name == 'base' then sum.base = tonumber(value)
    elseif name == 'sure' then sum.sure = true
    elseif kind == 'l:' then
      local tokens, expires = string.match(value, '(%d+) (%d+)')
      if tonumber(expires) <= now then redis.call('HDEL', key, name)
      else
        sum.underway = sum.underway + tokens
        if string.sub(name, 1, #own_lease) ~= own_lease then
          sum.others_underway = sum.others_underway + tokens
        end
      end
    elseif kind == 'p:' then
      local expires, unwritten, underway, requests, minute =
        string.match(value, '%d+ (%d+) (%d+) (%d+) (%d+) (%d+)')
      local age = now + alive - expires
      if age >= alive then redis.call('HDEL', key, name)
      else
        sum.unwritten = sum.unwritten + unwritten
        sum.underway = sum.underway + underway
        if age < message.fresh_ms then sum.certain = sum.certain + unwritten end
        if name ~= mine then
          sum.others_unwritten = sum.others_unwritten + unwritten
          sum.others_underway = sum.others_underway + underway
          sum.others_minute = sum.others_minute + minute * math.exp(-age / 60000)
          if age < message.fresh_ms then sum.others_requests = sum.others_requests + requests end
        end
      end
    end
  end
  return sum
end

-- The last request may overshoot by itself: what it may use is not part of the question.
local function judge(sum, limit)
  if sum.base >= limit then return 1 end
  if not ready then return 4 end
  if not sum.sure then return 5 end
  if sum.base + sum.certain >= limit then return 2 end
  if sum.base + sum.unwritten + sum.underway >= limit then return 3 end
  return 0
end

local answers = {}
for i, said in ipairs(message.meters) do
  local key = KEYS[i + 1]
  if take_over(key, said) then
    local sum = add_up(key)
    local answer = {sum.base, sum.others_unwritten, sum.others_underway, sum.others_requests,
      math.floor(sum.others_minute)}
    for _, wish in ipairs(said.wishes) do
      local verdict = judge(sum, wish[3])
      if verdict == 0 then
        redis.call('HSET', key, 'l:' .. wish[1], string.format('%.0f %.0f', wish[2], now + alive))
        sum.underway = sum.underway + wish[2]
      end
      answer[#answer + 1] = verdict
    end
    answers[i] = answer
  else
    answers[i] = {-1}
  end
end
local reply = {epoch = epoch, is_ready = ready and true or false}
if #answers > 0 then reply.answers = answers end
return cjson.encode(reply)
