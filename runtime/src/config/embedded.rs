use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Config;
use super::origin::Origin;
use super::value::{Content, DEPTH_MAX, Node, Table};

/// How the `toml` crate hands a date to a type that does not ask for one.
const TOML_DATE: &str = "$__toml_private_datetime";

/// Reads the configuration out of a larger one. The place of each value is not known then, so
/// that a report names keys only, and they start at this configuration.
impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let content = deserializer.deserialize_map(AnyValue { depth: 0 })?;
        match content {
            Some(Content::Table(root)) => Ok(Self { root }),
            _ => Err(D::Error::custom("the configuration must be a table")),
        }
    }
}

/// A value of any kind; nothing for null.
#[derive(Clone, Copy)]
struct AnyValue {
    depth: usize,
}

impl AnyValue {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            let message = format!("the configuration is nested deeper than {DEPTH_MAX} levels");
            return Err(E::custom(message));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

fn embedded(content: Content) -> Node {
    Node {
        origin: Origin::Embedded,
        content,
    }
}

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = Option<Content>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = Option<Content>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.depth == 0 {
            "a table of settings"
        } else {
            "text, a number, a boolean, a list or a table"
        })
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Some(Content::Boolean(truth)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(Content::Integer(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => Err(E::custom("a number is outside of 64 bits")),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Some(Content::Float(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Content::Text(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let seed = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(seed)? {
            list.extend(item.map(embedded));
        }
        Ok(Some(Content::List(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let seed = self.deeper()?;
        let mut table = Table::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Some(content) = entries.next_value_seed(seed)? else {
                continue;
            };
            if key == TOML_DATE {
                return Ok(Some(content));
            }
            table.insert(key, embedded(content));
        }
        Ok(Some(Content::Table(table)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Own {
        name: String,
        #[serde(default)]
        interline: Config,
    }

    #[test]
    fn a_configuration_is_a_part_of_the_programs_own() {
        let own: Own = toml::from_str(
            "name = 'billing'\n[interline.brokers.main]\nurl = 'amqp://u:canary@h'\n\
             prefetch = 20\nrate = 1.5\nlazy = true\nfrom = 2020-01-02\nhosts = ['a', 'b']\n",
        )
        .unwrap();
        assert_eq!(own.name, "billing");
        assert_eq!(
            own.interline.describe(),
            "brokers.main.from = \"2020-01-02\"     # embedded configuration\n\
             brokers.main.hosts = [\"a\", \"b\"]      # embedded configuration\n\
             brokers.main.lazy = true             # embedded configuration\n\
             brokers.main.prefetch = 20           # embedded configuration\n\
             brokers.main.rate = 1.5              # embedded configuration\n\
             brokers.main.url = \"amqp://u:***@h\"  # embedded configuration\n"
        );
        assert!(!format!("{own:?}").contains("canary"));
        let own: Own = toml::from_str("name = 'billing'").unwrap();
        assert_eq!(own.interline.describe(), "");
    }

    #[test]
    fn what_cannot_be_a_configuration_is_refused() {
        let error = toml::from_str::<Own>("name = 'x'\ninterline = 5").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the configuration must be a table"),
            "{error}"
        );
    }

    #[cfg(feature = "json")]
    #[test]
    fn json_nulls_are_absent_and_deep_json_is_refused() {
        let config: Config = serde_json::from_str(r#"{"run": {"only": null, "n": 1}}"#).unwrap();
        assert_eq!(config.describe(), "run.n = 1  # embedded configuration\n");
        let deep = format!("{}1{}", r#"{"a":"#.repeat(60), "}".repeat(60));
        let error = serde_json::from_str::<Config>(&deep).unwrap_err();
        assert!(
            error.to_string().contains("nested deeper than 32 levels"),
            "{error}"
        );
        let error = serde_json::from_str::<Config>(r#"{"a": 9223372036854775808}"#).unwrap_err();
        assert!(error.to_string().contains("outside of 64 bits"), "{error}");
    }
}
