//! Routes: which broker a topic belongs to.

/// The broker that is used when no route names another.
pub(crate) const MAIN_BROKER: &str = "main";

/// Which broker a topic belongs to, by pattern: `"audit.*" = "audit"`.
///
/// `*` stands for one segment, at the end for one or more. Of several that match, the one with the
/// most literal segments wins, then the longer one, then the first in alphabetical order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<(String, String)>);

impl Routes {
    /// Routes from pairs of pattern and broker.
    #[must_use]
    pub fn new(mut routes: Vec<(String, String)>) -> Self {
        routes.sort_by(|(one, _), (two, _)| {
            let rank = |pattern: &str| {
                let segments = pattern.split('.');
                let literal = segments.clone().filter(|segment| *segment != "*").count();
                (literal, segments.count())
            };
            rank(two).cmp(&rank(one)).then_with(|| one.cmp(two))
        });
        Self(routes)
    }

    /// The broker of `topic`.
    #[must_use]
    pub fn broker(&self, topic: &str) -> &str {
        self.0
            .iter()
            .find(|(pattern, _)| matches(pattern, topic))
            .map_or(MAIN_BROKER, |(_, broker)| broker)
    }

    /// All brokers that are named.
    pub fn brokers(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, broker)| broker.as_str())
    }
}

fn matches(pattern: &str, topic: &str) -> bool {
    let (mut ours, mut theirs) = (pattern.split('.').peekable(), topic.split('.'));
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) if ours.peek().is_none() => return true,
            (Some(our), Some(their)) if our == "*" || our == their => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_literal_pattern_wins() {
        let pair = |pattern: &str, broker: &str| (pattern.to_owned(), broker.to_owned());
        let routes = Routes::new(vec![
            pair("*", "all"),
            pair("audit.*", "audit"),
            pair("audit.eu.*", "eu"),
            pair("audit.*.placed", "placed"),
            pair("audit.eu.placed", "exact"),
        ]);
        assert_eq!(routes.broker("audit.eu.placed"), "exact");
        assert_eq!(routes.broker("audit.us.placed"), "placed");
        assert_eq!(routes.broker("audit.eu.gone"), "eu");
        assert_eq!(routes.broker("audit.us.gone.twice"), "audit");
        assert_eq!(routes.broker("orders"), "all");
        assert_eq!(Routes::default().broker("orders"), "main");
        assert!(!matches("audit.*", "audit"));
    }
}
