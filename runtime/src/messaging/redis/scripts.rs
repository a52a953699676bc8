//! What has to happen at once on the server. Every script names its keys, which lie in one slot.

use std::sync::LazyLock;

use redis::Script;

macro_rules! scripts {
    ($($(#[doc = $doc:literal])+ $name:ident = [$($part:expr),+];)+) => {$(
        $(#[doc = $doc])+
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(&[$($part),+].concat()));
    )+};
}

/// Milliseconds of the server's clock.
const NOW: &str = "
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
";

/// Whether a key has a group; no key means no.
const HAS: &str = "
local function has(key, group)
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  if groups.err then
    if string.find(groups.err, 'no such key') then return false end
    error(groups.err)
  end
  for _, found in ipairs(groups) do
    if found[2] == group then return true end
  end
  return false
end
";

/// Whether an entry was handed to a consumer of a group and is not settled; no group means no.
///
/// Whoever moves an entry asks this first, writes the copy, and settles the original last: the server
/// takes nothing back that a script did before it failed.
const HOLDS: &str = "
local function holds(key, group, consumer, id)
  local found = redis.pcall('XPENDING', key, group, id, id, 1, consumer)
  if found.err then
    if string.find(found.err, 'NOGROUP') then return false end
    error(found.err)
  end
  return #found == 1
end
local function settle(key, group, id, is_ours)
  redis.call('XACK', key, group, id)
  if is_ours == '1' then redis.call('XDEL', key, id) end
end
";

/// Compares two stream ids.
const NOT_AFTER: &str = "
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local function not_after(one, other)
  local ms1, seq1 = parts(one)
  local ms2, seq2 = parts(other)
  return ms1 < ms2 or (ms1 == ms2 and seq1 <= seq2)
end
";

/// See `APPLY`.
const MAKE: &str = "
local main, retry, state = KEYS[1], KEYS[2], KEYS[3]
local group, start, known = ARGV[1], ARGV[2], ARGV[3]
local made = 0
if not has(main, group) then
  local last, added
  if redis.call('EXISTS', main) == 1 then
    local info = redis.call('XINFO', 'STREAM', main)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then last = info[i + 1] end
      if info[i] == 'entries-added' then added = info[i + 1] end
    end
  end
  local seen = redis.call('HGET', state, 'id')
  local from
  if seen or known ~= '' then
    from = seen or known
    if not last or not not_after(from, last) then from = '0' end
  elseif start == 'earliest' then
    from = '0'
  else
    from = '$'
  end
  -- From the middle on, the server cannot count what a group has not read unless it is told.
  if from == '$' and added then
    redis.call('XGROUP', 'CREATE', main, group, from, 'MKSTREAM', 'ENTRIESREAD', added)
  else
    redis.call('XGROUP', 'CREATE', main, group, from, 'MKSTREAM')
  end
  if from == '$' then from = last or '0-0' end
  if from == '0' then from = '0-0' end
  redis.call('HSET', state, 'id', from)
  redis.call('HDEL', state, 'trimmed')
  made = made + 1
end
if not has(retry, group) then
  redis.call('XGROUP', 'CREATE', retry, group, '0', 'MKSTREAM')
  made = made + 1
end
return made
";

/// `APPLY`, for those who run it by other means.
pub(super) fn apply_text() -> String {
    [HAS, NOT_AFTER, MAKE].concat()
}

/// Refuses whoever does not hold the lease, where there is one.
const FENCE: &str = "
local function fenced(lease, token)
  return token ~= '' and redis.call('GET', lease) ~= token
end
";

scripts! {
    /// Makes the two groups of a subscription where they are missing. One that had existed continues
    /// where it is known to have been, so that nothing is skipped; a new one begins as it wants.
    ///
    /// Keys: stream, retries, state. Arguments: group, `new` or `earliest`, where this process knows
    /// the group to have been (or nothing). Answers how many groups were made.
    APPLY = [HAS, NOT_AFTER, MAKE];

    /// Counts what was not handed to a group. Keys: stream. Arguments: group, after which entry (nothing
    /// for where the group is), how many at most. Answers how many, and the last of them.
    UNREAD = ["
local after = ARGV[2]
if after == '' then
  for _, found in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if found[2] == ARGV[1] then
      for i = 1, #found, 2 do
        if found[i] == 'last-delivered-id' then after = found[i + 1] end
      end
    end
  end
  if after == '' then return {0, ''} end
end
local found = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', ARGV[3])
if #found == 0 then return {0, after} end
return {#found, found[#found][1]}
"];

    /// Which of the two groups are there. Keys: stream, retries. Arguments: group.
    VERIFY = [HAS, "
return {has(KEYS[1], ARGV[1]) and 1 or 0, has(KEYS[2], ARGV[1]) and 1 or 0}
"];

    /// Moves an entry to the delayed ones. Keys: its stream, delayed, lease. Arguments: group, consumer,
    /// entry, token, whether its stream is ours to delete from, delay in ms, then what is kept, of which
    /// the first makes it unlike any other. Answers -1 for a lost lease, 0 for an entry of somebody else.
    RETRY = [NOW, FENCE, HOLDS, "
if fenced(KEYS[3], ARGV[4]) then return -1 end
if not holds(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
local kept = {}
for i = 7, #ARGV do kept[#kept + 1] = ARGV[i] end
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[6]), cmsgpack.pack(kept))
settle(KEYS[1], ARGV[1], ARGV[3], ARGV[5])
return 1
"];

    /// Moves what is due to the retries. Keys: delayed, retries. Arguments: how many at most. Answers
    /// how many were moved, and in how many ms the next is due (-1 for none).
    MOVE = [NOW, "
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for _, packed in ipairs(due) do
  local kept = cmsgpack.unpack(packed)
  redis.call('XADD', KEYS[2], '*', unpack(kept, 2))
  redis.call('ZREM', KEYS[1], packed)
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not next[2] then return {#due, -1} end
return {#due, math.max(0, tonumber(next[2]) - now)}
"];

    /// Moves an entry to the dead letters. Keys: its stream, dead letters, lease. Arguments: group,
    /// consumer, entry, token, whether its stream is ours to delete from, then the fields. Answers as
    /// `RETRY`.
    BURY = [FENCE, HOLDS, "
if fenced(KEYS[3], ARGV[4]) then return -1 end
if not holds(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 6))
settle(KEYS[1], ARGV[1], ARGV[3], ARGV[5])
return 1
"];

    /// Keeps a message until it is due. Keys: set, contents. Arguments: identity, delay in ms, stream,
    /// then the fields.
    SCHEDULE = [NOW, "
local kept = {}
for i = 3, #ARGV do kept[#kept + 1] = ARGV[i] end
redis.call('HSET', KEYS[2], ARGV[1], cmsgpack.pack(kept))
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
return 1
"];

    /// Takes a message back that is not due yet. Keys: set, contents. Arguments: identity.
    UNSCHEDULE = ["
local taken = redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return taken
"];

    /// Publishes what is due; what its stream does not take is tried again a minute later. Keys: set,
    /// contents. Arguments: how many at most. Answers as `MOVE`.
    PUBLISH_DUE = [NOW, "
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
for _, id in ipairs(due) do
  local packed = redis.call('HGET', KEYS[2], id)
  local kept = packed and cmsgpack.unpack(packed)
  local added = kept and redis.pcall('XADD', kept[1], '*', unpack(kept, 2))
  if type(added) == 'table' and added.err then
    redis.call('ZADD', KEYS[1], now + 60000, id)
  else
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  end
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if not next[2] then return {#due, -1} end
return {#due, math.max(0, tonumber(next[2]) - now)}
"];

    /// Sends a dead letter back. Keys: dead letters, retries. Arguments: entry, then the fields. Answers
    /// 0 for one that is not there.
    REDRIVE = ["
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 2))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
"];

    /// Acknowledges for the holder of a lease. Keys: stream, retries, lease. Arguments: group, token,
    /// how many entries of the stream, those, then those of the retries. Answers -1 for a lost lease.
    ACKNOWLEDGE = [FENCE, "
if fenced(KEYS[3], ARGV[2]) then return -1 end
local first = tonumber(ARGV[3])
local done = 0
for i = 4, #ARGV do
  if i < 4 + first then
    done = done + redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  else
    done = done + redis.call('XACK', KEYS[2], ARGV[1], ARGV[i])
    redis.call('XDEL', KEYS[2], ARGV[i])
  end
end
return done
"];

    /// Gives an entry to a consumer that nobody is, and lets it look long abandoned there, so that
    /// whoever sweeps next takes it. Keys: its stream. Arguments: group, consumer, entry, how often it
    /// counts as handed out, the consumer that nobody is. Answers 0 if it is somebody else's.
    RELEASE = ["
local mine = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])
if #mine == 0 then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[5], 0, ARGV[3], 'IDLE', 100000000000, 'RETRYCOUNT', ARGV[4], 'JUSTID')
return 1
"];

    /// Claims entries that were handed out and not settled. Keys: stream, retries, lease. Arguments:
    /// group, consumer, token, for how many ms they lie, how many at most, after which entry of the
    /// stream and of the retries, and whether only those of this consumer. Answers the claimed ones as
    /// (1 or 2 for the stream, entry, times handed out, fields), and how many were trimmed meanwhile.
    SWEEP = [FENCE, "
if fenced(KEYS[3], ARGV[3]) then return false end
local group, consumer, idle, left = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local found, gone = {}, 0
for _, at in ipairs({2, 1}) do
  if left > 0 then
    local key, after = KEYS[at], ARGV[5 + at]
    local query = {'XPENDING', key, group, 'IDLE', idle, after, '+', left}
    if ARGV[8] == '1' then query[#query + 1] = consumer end
    for _, entry in ipairs(redis.call(unpack(query))) do
      local id = entry[1]
      local claimed = redis.call('XCLAIM', key, group, consumer, idle, id)
      if type(claimed[1]) == 'table' and type(claimed[1][2]) == 'table' then
        found[#found + 1] = {at, id, entry[4] + 1, claimed[1][2]}
        left = left - 1
      else
        redis.call('XACK', key, group, id)
        gone = gone + 1
      end
    end
  end
end
return {found, gone}
"];

    /// Tells that entries are still being handled. Keys: stream, retries. Arguments: group, consumer,
    /// how many entries of the stream, those, then those of the retries. Answers 1 for each that is
    /// still this consumer's, else 0.
    RENEW = ["
local first, kept = tonumber(ARGV[3]), {}
for i = 4, #ARGV do
  local key = i < 4 + first and KEYS[1] or KEYS[2]
  local mine = redis.call('XPENDING', key, ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if #mine == 1 then
    redis.call('XCLAIM', key, ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    kept[#kept + 1] = 1
  else
    kept[#kept + 1] = 0
  end
end
return kept
"];

    /// Looks after a subscription: notes how far its group is, drops consumers that are gone and hold
    /// nothing, counts what was trimmed unread, and trims what every group has settled where the stream
    /// is too long. Keys: stream, retries, state. Arguments: group, consumer, for how many ms a
    /// consumer may be silent, how long a stream may get (0 for any). Answers how many entries were
    /// newly found to be trimmed unread, and how many are not settled (-1 where the server cannot tell).
    TEND = [NOT_AFTER, "
local main, state = KEYS[1], KEYS[3]
local group, consumer, silent = ARGV[1], ARGV[2], tonumber(ARGV[3])
for at = 1, 2 do
  for _, other in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[at], group)) do
    local found = {}
    for i = 1, #other, 2 do found[other[i]] = other[i + 1] end
    if found.name ~= consumer and found.pending == 0 and found.idle > silent then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[at], group, found.name)
    end
  end
end
local mine
for _, found in ipairs(redis.call('XINFO', 'GROUPS', main)) do
  if found[2] == group then
    mine = {}
    for i = 1, #found, 2 do mine[found[i]] = found[i + 1] end
  end
end
if not mine then return {0, -1} end
local id = mine['last-delivered-id']
local pending = redis.call('XPENDING', main, group)
if pending[1] > 0 then
  local ms, seq = string.match(pending[2], '^(%d+)-(%d+)$')
  if seq ~= '0' then
    id = ms .. '-' .. string.format('%.0f', tonumber(seq) - 1)
  else
    id = string.format('%.0f', tonumber(ms) - 1) .. '-18446744073709551615'
  end
end
redis.call('HSET', state, 'id', id)
local longest = tonumber(ARGV[4])
if longest > 0 and redis.call('XLEN', main) > longest then
  local low
  for _, found in ipairs(redis.call('XINFO', 'GROUPS', main)) do
    local of = {}
    for i = 1, #found, 2 do of[found[i]] = found[i + 1] end
    local out = redis.call('XPENDING', main, of.name)
    local first = out[1] > 0 and out[2] or of['last-delivered-id']
    if not low or not_after(first, low) then low = first end
  end
  redis.call('XTRIM', main, 'MINID', '~', low)
end
local lag = -1
if mine.lag then
  -- What is settled of the retries is deleted.
  lag = mine.lag + pending[1] + redis.call('XLEN', KEYS[2])
end
local read = mine['entries-read']
if not read then return {0, lag} end
local info = {}
local raw = redis.call('XINFO', 'STREAM', main)
for i = 1, #raw, 2 do info[raw[i]] = raw[i + 1] end
local first = info['first-entry']
-- Only where all that is left is unread, or nothing is, does the difference say what is missing.
local unread = info['length']
if first and not_after(first[1], mine['last-delivered-id']) then
  if mine['last-delivered-id'] ~= info['last-generated-id'] then return {0, lag} end
  unread = 0
end
local missing = info['entries-added'] - read - unread
local told = tonumber(redis.call('HGET', state, 'trimmed') or '0')
if missing <= told then return {0, lag} end
redis.call('HSET', state, 'trimmed', missing)
return {missing - told, lag}
"];

    /// Takes or keeps a lease. Keys: lease, state. Arguments: token, ms. Answers whether it is held,
    /// its number (each holder has a higher one), and otherwise for how many ms it is somebody else's.
    LEASE = ["
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {1, tonumber(redis.call('HGET', KEYS[2], 'fence') or '0')}
end
if holder then return {0, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, redis.call('HINCRBY', KEYS[2], 'fence', 1)}
"];

    /// Gives a lease back. Keys: lease. Arguments: token.
    GIVE_BACK = ["
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"];

    /// Reads for the holder of a lease. Keys: stream, retries, lease. Arguments: group, consumer, token,
    /// how many of each. Answers nothing for a lost lease, else the entries, and how far the groups are.
    READ = [FENCE, "
if fenced(KEYS[3], ARGV[3]) then return false end
local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[4], 'STREAMS', KEYS[2], KEYS[1], '>', '>')
local last = {}
for at = 1, 2 do
  for _, found in ipairs(redis.call('XINFO', 'GROUPS', KEYS[at])) do
    if found[2] == ARGV[1] then
      for i = 1, #found, 2 do
        if found[i] == 'last-delivered-id' then last[at] = found[i + 1] end
      end
    end
  end
end
return {read or {}, last[1] or '0-0', last[2] or '0-0'}
"];

    /// Tells that an instance's own group is in use, and takes away those of instances that are gone.
    /// Keys: stream, register. Arguments: group, for how many ms an instance may be silent, how the
    /// keys of a group begin. Answers how many were taken away.
    BEAT = [NOW, "
redis.call('ZADD', KEYS[2], now, ARGV[1])
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[2]))
for _, group in ipairs(gone) do
  redis.call('XGROUP', 'DESTROY', KEYS[1], group)
  for _, part in ipairs({':retry', ':delayed', ':state', ':lease'}) do
    redis.call('DEL', ARGV[3] .. group .. part)
  end
  redis.call('ZREM', KEYS[2], group)
end
return #gone
"];

    /// Takes an instance's own group away. Keys: stream, retries, delayed, state, register. Arguments:
    /// group.
    RETIRE = ["
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1]) end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('ZREM', KEYS[5], ARGV[1])
return 1
"];

    /// Takes a consumer out of a group unless it holds something. Keys: stream, retries. Arguments:
    /// group, consumer.
    LEAVE = [HAS, "
for at = 1, 2 do
  if has(KEYS[at], ARGV[1]) then
    local held = redis.call('XPENDING', KEYS[at], ARGV[1], '-', '+', 1, ARGV[2])
    if #held == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[at], ARGV[1], ARGV[2]) end
  end
end
return 1
"];
}
