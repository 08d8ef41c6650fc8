-- Takes units and places from every limit or from none, gives them back, takes
-- what an answer turned out to cost, or renews places.
--
-- KEYS     one limit and subject each, all in one hash slot
-- ARGV[1]  "take", "give", "debit" or "renew"
-- ARGV[2]  now in microseconds; empty for this server's clock
-- ARGV     then four for each key:
--          "b" a bucket: microseconds per unit, microseconds to fill, units
--          "c" a concurrency limit: places, microseconds a place is held unless
--              renewed, holder (empty: only look)
--          With "s" before it, a shadow: it stops nobody.
--
-- A bucket is "A:S": its arrival time and the microseconds it took to fill when
-- it was written. Places are a sorted set of holders by the time they expire.
-- Every number that is stored or returned stays below 2^53, which Lua holds
-- exactly. A cost times its unit may not; such a cost never fits.
--
-- Returns 1 when units were taken (or given), else 0; then for each key by how
-- many microseconds its arrival time lay ahead of now before, or the places that
-- were in use.

local now, ttl_slack = tonumber(ARGV[2]), 0
if now then
  -- A clock of the caller's does not tell when a key may expire.
  ttl_slack = 600000
else
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end

local op = ARGV[1]
local reply, granted = { 1 }, true
local limits = {}

local function int(n)
  return string.format('%.0f', n)
end

local function ahead_of(key, span)
  -- GET rather than MGET: on a key of another type it fails, before anything
  -- was written.
  local value = redis.call('GET', key)
  if not value then
    return 0
  end
  local tat, written_span = string.match(value, '^(%d+):(%d+)$')
  if not tat then
    return nil
  end
  written_span = tonumber(written_span)
  local ahead = math.max(0, math.min(tonumber(tat) - now, written_span))
  local changed = ahead > 0 and written_span ~= span
  if changed then
    ahead = math.ceil(ahead / written_span * span)
  end
  return math.min(ahead, span), changed
end

local function write(key, ahead, span)
  if ahead <= 0 then
    redis.call('DEL', key)
    return
  end
  redis.call('SET', key, int(now + ahead) .. ':' .. int(span), 'PX', int(math.ceil(ahead / 1000) + 1 + ttl_slack))
end

for i, key in ipairs(KEYS) do
  local at = 4 * i - 1
  local kind = ARGV[at]
  local l = {
    shadow = string.sub(kind, 1, 1) == 's',
    places = string.sub(kind, -1) == 'c',
    fits = true,
  }
  limits[i] = l
  if l.places then
    l.max, l.ttl, l.holder = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
    reply[i + 1] = redis.call('ZCOUNT', key, '(' .. int(now), '+inf')
    l.fits = l.holder == '' or reply[i + 1] < l.max
  else
    l.unit, l.span, l.units = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local ahead
    ahead, l.changed = ahead_of(key, l.span)
    if not ahead then
      return redis.error_reply('MOATFOREIGN a rate limit key holds something else')
    end
    reply[i + 1] = ahead
    l.fits = l.units == 0 or ahead + l.units * l.unit <= l.span
  end
  if op == 'take' and not l.fits and not l.shadow then
    granted = false
  end
end

if not granted then
  reply[1] = 0
end

-- A bucket at another rate goes on at the new one, also when nothing is taken: it
-- would otherwise fill at the old pace until something is.
for i, key in ipairs(KEYS) do
  local l = limits[i]
  if op == 'take' and l.changed and l.units > 0 and not (granted and l.fits) then
    write(key, reply[i + 1], l.span)
  end
end

if not granted then
  return reply
end

local function keep(key, ms)
  redis.call('PEXPIRE', key, int(ms + ttl_slack))
end

local places, bucket = {}, {}

function places.take(key, l)
  if l.holder ~= '' then
    -- ZADD comes first: a server out of memory refuses it only as long as the
    -- script has written nothing.
    redis.call('ZADD', key, int(now + l.ttl), l.holder)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now))
    keep(key, math.ceil(l.ttl / 1000) + 1)
  end
end

function places.give(key, l)
  redis.call('ZREM', key, l.holder)
end

function places.renew(key, l)
  -- XX: a place that was given back meanwhile stays free.
  redis.call('ZADD', key, 'XX', int(now + l.ttl), l.holder)
  keep(key, math.ceil(l.ttl / 1000) + 1)
end

function bucket.take(key, l, ahead)
  if l.units > 0 then
    write(key, ahead + l.units * l.unit, l.span)
  end
end

function bucket.give(key, l, ahead)
  if ahead > 0 and l.units > 0 then
    write(key, ahead - l.units * l.unit, l.span)
  end
end

function bucket.debit(key, l, ahead)
  if l.units > 0 then
    write(key, math.min(ahead + l.units * l.unit, l.span), l.span)
  end
end

for i, key in ipairs(KEYS) do
  local l = limits[i]
  local act = (l.places and places or bucket)[op]
  if act and (l.fits or op ~= 'take') then
    act(key, l, reply[i + 1])
  end
end

return reply
