//! What is on the server beside what has to be there, and what has to be there as a script for
//! `redis-cli`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use redis::{Cmd, FromRedisValue, Value, from_redis_value};

use crate::messaging::{
    BrokerError, Difference, Export, Inspection, Leftover, Topology, TopologyPart,
};
use crate::redis::{Failure, FailureKind};

use super::core::Core;
use super::errors::broker_error;
use super::live::Live;
use super::names::{INSTANCES, Names};
use super::scripts;
use super::topology::{self, GROUP, Part, STREAM, start_name};

/// Keys that the server looks at for one answer.
const KEYS_AT_ONCE: usize = 1_000;
/// Entries that the server counts for one answer: it does nothing else meanwhile.
const COUNTED_AT_ONCE: usize = 500;
/// How the key of a list of instances ends; it holds no messages.
const INSTANCES_END: &str = ":instances";
const WHAT: &str = "what is on the server";

/// Compares the server with a topology.
pub(super) async fn inspect(core: &Core, topology: &Topology) -> Result<Inspection, BrokerError> {
    let groups = topology::groups(&core.context.name, topology)?;
    let live = core.connected()?;
    let look = Look {
        core,
        live: &live,
        groups: &groups,
    };
    let looked = look.inspect(topology).await;
    looked.map_err(|failure| broker_error(&core.context.name, &failure))
}

/// What a consumer group has not settled yet.
#[derive(Clone, Copy, Default)]
struct Found {
    pending: u64,
    /// What was not handed out; `None` where the server has not counted it.
    lag: Option<u64>,
}

struct Look<'a> {
    core: &'a Core,
    live: &'a Live,
    groups: &'a [Part],
}

impl Look<'_> {
    async fn inspect(&self, topology: &Topology) -> Result<Inspection, Failure> {
        let mut inspection = Inspection::default();
        for part in &topology.parts {
            self.compare(part, &mut inspection).await?;
        }
        match self.leftover().await {
            Ok(leftover) => inspection.leftover = leftover,
            // Told, and not an error: the rest was seen.
            Err(failure) if failure.kind == FailureKind::Permission => {
                inspection.unseen.push(
                    "what is no longer declared: the user may not list keys (`+scan`)".to_owned(),
                );
            }
            Err(failure) => return Err(failure),
        }
        inspection.unseen.push(
            "groups of names that are no longer declared at all: nothing on the server tells whose \
             they are (`XINFO GROUPS STREAM`)"
                .to_owned(),
        );
        Ok(inspection)
    }

    async fn compare(&self, part: &TopologyPart, into: &mut Inspection) -> Result<(), Failure> {
        // What belongs to an instance comes and goes with it.
        let of_instance = |name: &str| {
            let mut groups = self.groups.iter();
            groups.any(|group| {
                group.is_own && (group.names.group == name || group.names.retry == name)
            })
        };
        if of_instance(&part.name) {
            return Ok(());
        }
        let is_there = match (part.kind, topology::argument(part, STREAM)) {
            (GROUP, Some(stream)) => match self.kind_of(stream).await?.as_str() {
                STREAM => self.group(stream, &part.name).await?.is_some(),
                // Told of the stream.
                "none" => false,
                _ => return Ok(()),
            },
            _ => match self.kind_of(&part.name).await?.as_str() {
                STREAM => match topology::argument(part, topology::SHARED) {
                    Some(group) => self.group(&part.name, group).await?.is_some(),
                    None => true,
                },
                "none" => false,
                other => {
                    let what = format!("it is a {other}, declared is a stream");
                    into.different.push(Difference::new(part.clone(), what));
                    return Ok(());
                }
            },
        };
        if !is_there {
            into.missing.push(part.clone());
        }
        Ok(())
    }

    /// What groups of ours left behind on streams that they are not declared for any more.
    async fn leftover(&self) -> Result<Vec<Leftover>, Failure> {
        let mut found = Vec::new();
        for place in self.places().await? {
            let Place { tagged, group, .. } = &place;
            // A stream of the form `{x}` is its own tag.
            let bare = tagged
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            for stream in bare.into_iter().chain([tagged.as_str()]) {
                if self.kind_of(stream).await? == STREAM
                    && let Some(left) = self.group(stream, group).await?
                {
                    let depth = left.pending + self.lag(stream, group, left).await?;
                    let name = format!("{group} of {stream}");
                    found.push(Leftover::new(GROUP, name).depth(depth));
                    break;
                }
            }
            for key in &place.keys {
                if key.ends_with(INSTANCES_END) {
                    continue;
                }
                let (kind, count) = match self.kind_of(key).await?.as_str() {
                    STREAM => (STREAM, "XLEN"),
                    "zset" => ("sorted set", "ZCARD"),
                    _ => continue,
                };
                let depth = self.query(redis::cmd(count).arg(key)).await?;
                found.push(Leftover::new(kind, key).depth(depth));
            }
        }
        Ok(found)
    }

    /// Where groups of ours keep something and are not declared.
    async fn places(&self) -> Result<Vec<Place>, Failure> {
        let ours = Ours::of(self.core, self.groups);
        let mut keys = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg("*}*:*:*");
            scan.arg("COUNT").arg(KEYS_AT_ONCE);
            let (next, found): (u64, Vec<Vec<u8>>) = self.query(&scan).await?;
            let found = found.into_iter().map(String::from_utf8);
            keys.extend(found.filter_map(Result::ok).filter(|key| ours.may_own(key)));
            if next == 0 {
                return Ok(ours.places(&keys));
            }
            cursor = next;
        }
    }

    /// The group of a stream; `None` if it has none of this name.
    async fn group(&self, stream: &str, group: &str) -> Result<Option<Found>, Failure> {
        let groups: Vec<HashMap<String, Value>> = self
            .query(redis::cmd("XINFO").arg("GROUPS").arg(stream))
            .await?;
        let number = |of: &HashMap<String, Value>, name: &str| {
            of.get(name)
                .and_then(|value| from_redis_value::<u64>(value.clone()).ok())
        };
        let found = groups.iter().find(|found| {
            let name = found.get("name").cloned();
            name.is_some_and(|name| {
                from_redis_value::<String>(name).is_ok_and(|name| name == group)
            })
        });
        Ok(found.map(|found| Found {
            pending: number(found, "pending").unwrap_or_default(),
            lag: number(found, "lag"),
        }))
    }

    /// How much of a stream was not handed to a group.
    async fn lag(&self, stream: &str, group: &str, found: Found) -> Result<u64, Failure> {
        if let Some(lag) = found.lag {
            return Ok(lag);
        }
        let (mut after, mut all) = (String::new(), 0);
        loop {
            let mut script = scripts::UNREAD.key(stream);
            script.arg(group).arg(&after).arg(COUNTED_AT_ONCE);
            let (count, last): (u64, String) = self.live.settle.run(WHAT, &script).await?;
            all += count;
            if count == 0 {
                return Ok(all);
            }
            after = last;
        }
    }

    /// `stream`, `none` where there is nothing, or what else the key is.
    async fn kind_of(&self, key: &str) -> Result<String, Failure> {
        self.query(redis::cmd("TYPE").arg(key)).await
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        self.live.settle.query(WHAT, command).await
    }
}

/// A stream and a group on it, with the keys that the group has beside it.
#[derive(Debug, PartialEq)]
struct Place {
    /// The stream, with a hash tag.
    tagged: String,
    group: String,
    keys: BTreeSet<String>,
}

/// Which groups are ours, and which of them are declared where.
struct Ours<'a> {
    /// The names of groups that are shared.
    named: BTreeSet<&'a str>,
    /// What the groups of our instances begin with.
    service: String,
    /// How the keys of declared groups begin, and their names.
    declared: BTreeSet<(&'a str, &'a str)>,
    /// The same of what instances share.
    declared_shared: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Ours<'a> {
    fn of(core: &'a Core, groups: &'a [Part]) -> Self {
        let context = &core.context;
        Self::new(&context.service, &context.instance, groups)
    }

    fn new(service: &'a str, instance: &str, groups: &'a [Part]) -> Self {
        let end = format!(".{instance}");
        let mut ours = Self {
            named: BTreeSet::from([service]),
            service: format!("{service}."),
            declared: BTreeSet::new(),
            declared_shared: BTreeSet::new(),
        };
        for part in groups {
            let (begin, group) = (part.names.begin.as_str(), part.names.group.as_str());
            if part.is_own {
                // It is called like what the instances of a subscriber share, and the instance.
                let shared = group.strip_suffix(&end).unwrap_or(group);
                ours.declared_shared.insert((begin, shared));
            } else {
                ours.named.insert(group);
                ours.declared.insert((begin, group));
            }
        }
        ours
    }

    /// Whether a key is worth a closer look.
    fn may_own(&self, key: &str) -> bool {
        let owner = Names::owner(key).map(|(owner, _)| owner);
        owner.is_some_and(|owner| {
            self.named(owner).is_some() || owner.contains(&format!(":{}", self.service))
        })
    }

    /// The stream and the shared group that this is.
    fn named<'k>(&self, owner: &'k str) -> Option<(&'k str, &'k str)> {
        let mut named = self.named.iter();
        named.find_map(|group| {
            let begin = owner.strip_suffix(group)?;
            let stream = begin.strip_suffix(':')?;
            Some((stream, &owner[begin.len()..]))
        })
    }

    /// What is not declared among these keys, each place once.
    fn places(&self, keys: &[String]) -> Vec<Place> {
        // Where instances have, or had, groups of their own. Another service may be called like ours
        // and a part behind it: then more than the subscriber's name follows.
        let registers: BTreeSet<(&str, &str)> = keys
            .iter()
            .filter_map(|key| Names::owner(key).filter(|(_, part)| *part == INSTANCES))
            .filter_map(|(owner, _)| owner.rsplit_once(':'))
            .filter(|(_, shared)| {
                let subscriber = shared.strip_prefix(&self.service);
                subscriber.is_some_and(|subscriber| !subscriber.contains('.'))
            })
            .collect();
        let of_instances = |owner: &'_ str| {
            let mut registers = registers.iter();
            registers.any(|(stream, shared)| {
                let group = owner.strip_prefix(stream);
                let group = group.and_then(|rest| rest.strip_prefix(':'));
                let rest = group.and_then(|group| group.strip_prefix(shared));
                let is_declared = || {
                    let mut declared = self.declared_shared.iter();
                    declared.any(|(begin, known)| {
                        begin.strip_suffix(':') == Some(*stream) && known == shared
                    })
                };
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) && !is_declared()
            })
        };
        let mut places: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
        for key in keys {
            let Some((owner, _)) = Names::owner(key) else {
                continue;
            };
            let found = match self.named(owner) {
                Some((stream, group)) => {
                    let mut declared = self.declared.iter();
                    let is_declared = declared.any(|(begin, known)| {
                        begin.strip_suffix(':') == Some(stream) && *known == group
                    });
                    (!is_declared).then_some((stream, group))
                }
                None if of_instances(owner) => owner.rsplit_once(':'),
                None => None,
            };
            if let Some(place) = found {
                places.entry(place).or_default().insert(key.clone());
            }
        }
        let place = |((tagged, group), keys): ((&str, &str), _)| Place {
            tagged: tagged.to_owned(),
            group: group.to_owned(),
            keys,
        };
        places.into_iter().map(place).collect()
    }
}

/// The topology as a script for `redis-cli`, which does what `apply` does.
pub(super) fn export(core: &Core, topology: &Topology) -> Option<Export> {
    let groups = topology::groups(&core.context.name, topology).ok()?;
    let mut text = String::from(
        "#!/bin/sh\n\
         # Makes the groups that are missing, and their streams: sh FILE -u redis://host:port\n\
         # What follows FILE goes to redis-cli. What is there stays as it is, and a group that is known to\n\
         # have existed goes on where it was.\n\
         set -eu\n\
         script=$(cat <<'LUA'\n",
    );
    text.push_str(scripts::apply_text().trim());
    text.push_str(
        "\nLUA\n)\n\
         # make STREAM RETRIES STATE GROUP new|earliest\n\
         make() {\n    \
             stream=$1 retries=$2 state=$3 group=$4 start=$5\n    \
             shift 5\n    \
             made=$(redis-cli \"$@\" EVAL \"$script\" 3 \"$stream\" \"$retries\" \"$state\" \"$group\" \"$start\" '')\n    \
             case $made in\n        \
                 0 | 1 | 2) ;;\n        \
                 *)\n            \
                     printf 'group %s of stream %s: %s\\n' \"$group\" \"$stream\" \"$made\" >&2\n            \
                     exit 1\n            \
                     ;;\n    \
             esac\n\
         }\n\n",
    );
    // Writing to a text cannot fail.
    for part in &groups {
        let names = &part.names;
        if part.is_own {
            let line = names.group.replace(['\n', '\r'], " ");
            let _ = writeln!(text, "# group {line}: each instance makes its own");
            continue;
        }
        let _ = writeln!(
            text,
            "make {} {} {} {} {} \"$@\"",
            quoted(&names.stream),
            quoted(&names.retry),
            quoted(&names.state),
            quoted(&names.group),
            start_name(part.start)
        );
    }
    let format = "redis-cli commands: sh FILE -u redis://host:port";
    Some(Export::new(format, "sh", text))
}

/// A text as a shell takes it for one word.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::TopologyMode;

    /// A group on a stream, and what the instances of a subscriber have on one.
    fn declared() -> Vec<Part> {
        let part = |stream: &str, group: &str, own: bool| {
            let mut part = TopologyPart::new(GROUP, group, TopologyMode::Apply);
            part.arguments.push((STREAM.to_owned(), stream.to_owned()));
            if own {
                let instance = ("instance".to_owned(), "true".to_owned());
                part.arguments.push(instance);
            }
            part
        };
        let parts = vec![
            part("kept", "billing", false),
            part("kept", "a:b", false),
            part("kept", "billing.refresh.one", true),
        ];
        topology::groups(&"main".into(), &Topology::new(parts)).unwrap()
    }

    fn left(keys: &[&str]) -> Vec<(String, String, usize)> {
        let groups = declared();
        let ours = Ours::new("billing", "one", &groups);
        let keys = keys.iter().map(|key| (*key).to_owned());
        let keys: Vec<_> = keys.filter(|key| ours.may_own(key)).collect();
        let places = ours.places(&keys).into_iter();
        places
            .map(|place| (place.tagged, place.group, place.keys.len()))
            .collect()
    }

    #[test]
    fn what_is_declared_and_what_is_others_is_not_left_over() {
        let keys = [
            "{kept}:billing:retry",
            "{kept}:a:b:dlq",
            "{kept}:billing.refresh:instances",
            "{kept}:billing.refresh.two:state",
            "{kept}:shipping:retry",
            // Of a service called `billing.eu`.
            "{old}:billing.eu:retry",
            "{old}:billing.eu.refresh:instances",
            "{old}:billing.eu.refresh.one:state",
            "billing:retry",
        ];
        assert_eq!(left(&keys), []);
    }

    #[test]
    fn what_a_group_of_ours_left_is_told_once_for_each_stream() {
        let keys = [
            "{old}:billing:retry",
            "{old}:billing:state",
            "{eu}:old:a:b:dlq",
            "{old}:billing.refresh:instances",
            "{old}:billing.refresh:dlq",
            "{old}:billing.refresh.two:state",
        ];
        let told = |stream: &str, group: &str, keys| (stream.to_owned(), group.to_owned(), keys);
        assert_eq!(
            left(&keys),
            [
                told("{eu}:old", "a:b", 1),
                told("{old}", "billing", 2),
                told("{old}", "billing.refresh", 2),
                told("{old}", "billing.refresh.two", 1),
            ]
        );
    }

    #[test]
    fn a_word_stays_one_word_for_a_shell() {
        assert_eq!(quoted("{a}:b's"), r"'{a}:b'\''s'");
    }
}
