-- Takes units from every bucket or from none, or gives them back.
--
-- KEYS     one bucket each, all in one hash slot
-- ARGV[1]  "take" or "give"
-- ARGV[2]  now in microseconds; empty for this server's clock
-- ARGV     then for each key: microseconds per unit, microseconds to fill, units
--
-- A bucket is "A:S": its arrival time and the microseconds it took to fill when
-- it was written. Every number that is stored or returned stays below 2^53, which
-- Lua holds exactly. A cost times its unit may not; such a cost never fits.
--
-- Returns 1 when units were taken (or given), else 0; then for each key by how
-- many microseconds its arrival time lay ahead of now before.

local now, ttl_slack = tonumber(ARGV[2]), 0
if now then
  -- A clock of the caller's does not tell when a key may expire.
  ttl_slack = 600000
else
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end

local give = ARGV[1] == 'give'
local reply, granted = { 1 }, true

for i, key in ipairs(KEYS) do
  local unit, span, units = tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  local ahead = 0
  -- GET rather than MGET: on a key of another type it fails, before anything
  -- was written.
  local value = redis.call('GET', key)
  if value then
    local tat, written_span = string.match(value, '^(%d+):(%d+)$')
    if not tat then
      return redis.error_reply('MOATFOREIGN a rate limit key holds something else')
    end
    written_span = tonumber(written_span)
    ahead = math.max(0, math.min(tonumber(tat) - now, written_span))
    if ahead > 0 and written_span ~= span then
      ahead = math.ceil(ahead / written_span * span)
    end
    ahead = math.min(ahead, span)
  end
  reply[i + 1] = ahead
  if not give and units > 0 and ahead + units * unit > span then
    granted = false
  end
end

if not granted then
  reply[1] = 0
  return reply
end

for i, key in ipairs(KEYS) do
  local unit, span, units = tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  local ahead = reply[i + 1]
  if give then
    if ahead > 0 and units > 0 then
      ahead = ahead - units * unit
      if ahead <= 0 then
        redis.call('DEL', key)
        units = 0
      end
    else
      units = 0
    end
  else
    ahead = ahead + units * unit
  end
  if units > 0 then
    redis.call('SET', key, string.format('%.0f:%.0f', now + ahead, span),
      'PX', string.format('%.0f', math.ceil(ahead / 1000) + 1 + ttl_slack))
  end
end

return reply
