//! Several servers in one url: the nodes of a cluster, of which any will do.

use crate::clock::Rng;

use super::settings::Target;

/// The url with each of its servers alone, in their order; what is wrong with it.
pub(super) fn each(url: &str) -> Result<Vec<String>, String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Ok(vec![url.to_owned()]);
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // A password may hold what separates servers.
    let (user, hosts) = match authority.rfind('@') {
        Some(at) => authority.split_at(at + 1),
        None => ("", authority),
    };
    let hosts: Vec<&str> = hosts.split(',').collect();
    if hosts.len() > 1 && hosts.contains(&"") {
        return Err("has a comma with no server beside it".to_owned());
    }
    let alone = |host: &&str| format!("{scheme}://{user}{host}{path}");
    Ok(hosts.iter().map(alone).collect())
}

/// Puts servers in the order in which they are tried: chance's, so that the instances of a service share them,
/// and the one that was lost comes last.
pub(super) fn order(targets: &mut [Target], lost: Option<&str>, rng: &Rng) {
    for at in (1..targets.len()).rev() {
        let bound = u64::try_from(at + 1).unwrap_or(u64::MAX);
        let other = usize::try_from(rng.below(bound)).unwrap_or(at);
        targets.swap(at, other);
    }
    targets.sort_by_key(|target| Some(&*target.place.host) == lost);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_gets_what_is_common_to_all() {
        let split = |url: &str| each(url).unwrap();
        assert_eq!(split("amqp://localhost"), ["amqp://localhost"]);
        assert_eq!(
            split("amqps://me:a,b@one:1,[::1],two/v?heartbeat=3"),
            [
                "amqps://me:a,b@one:1/v?heartbeat=3",
                "amqps://me:a,b@[::1]/v?heartbeat=3",
                "amqps://me:a,b@two/v?heartbeat=3",
            ]
        );
        assert_eq!(split("amqp://one,two?x=1,2").len(), 2);
        assert_eq!(split("nonsense"), ["nonsense"]);
        for url in ["amqp://one,,two", "amqp://me@,one/v", "amqp://one,"] {
            assert!(each(url).unwrap_err().contains("comma"), "{url}");
        }
    }
}
