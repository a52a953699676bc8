//! Topics: their characters and length, templates with `{field}` placeholders, and matching.

use std::borrow::Cow;
use std::fmt;

/// Longest topic, in bytes: what Kafka allows, and safely below AMQP's 255.
pub const TOPIC_BYTES_MAX: usize = 249;

/// Why a text is not a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Nothing between two dots, or at an end.
    #[error("topic `{0}` has an empty segment; segments are separated by single dots")]
    EmptySegment(String),
    /// No text at all.
    #[error("a topic cannot be empty; write for example `orders.placed`")]
    Empty,
    /// A field rendered into a template holds something that would change the topic's shape.
    #[error(
        "`{value}` cannot stand for `{{{field}}}` in topic `{template}`: a segment is letters, digits, `-` and `_`"
    )]
    Field {
        /// The template.
        template: &'static str,
        /// The field.
        field: &'static str,
        /// What the field held.
        value: String,
    },
    /// A character that some broker does not take.
    #[error(
        "topic `{topic}` holds `{character}`; only letters, digits, `.`, `-` and `_` are allowed"
    )]
    Character {
        /// The topic.
        topic: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// Longer than [`TOPIC_BYTES_MAX`].
    #[error("topic `{0}` is longer than 249 bytes")]
    TooLong(String),
    /// A brace that is not closed, not opened, or holds no name.
    #[error(
        "topic `{0}` has an unbalanced or empty `{{..}}`; write for example `orders.{{region}}.placed`"
    )]
    Brace(String),
}

/// What is wrong with a topic or template, found without allocation so that it can run at compile
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum TopicFlaw {
    Empty,
    EmptySegment,
    Character(u8),
    TooLong,
    Brace,
}

/// Checks a topic or a template; usable in constants.
#[doc(hidden)]
#[must_use]
pub const fn flaw(topic: &str) -> Option<TopicFlaw> {
    let bytes = topic.as_bytes();
    if bytes.is_empty() {
        return Some(TopicFlaw::Empty);
    }
    if bytes.len() > TOPIC_BYTES_MAX {
        return Some(TopicFlaw::TooLong);
    }
    let (mut at, mut segment, mut open) = (0, 0, false);
    while at < bytes.len() {
        let byte = bytes[at];
        match byte {
            b'.' if open => return Some(TopicFlaw::Brace),
            b'.' => {
                if segment == 0 {
                    return Some(TopicFlaw::EmptySegment);
                }
                segment = 0;
                at += 1;
                continue;
            }
            // A placeholder is a whole segment: `orders.{region}`, not `orders.eu-{region}`.
            b'{' if open || segment > 0 => return Some(TopicFlaw::Brace),
            b'{' => open = true,
            b'}' => {
                let whole = open && segment > 1 && (at + 1 == bytes.len() || bytes[at + 1] == b'.');
                if !whole {
                    return Some(TopicFlaw::Brace);
                }
                open = false;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {}
            other => return Some(TopicFlaw::Character(other)),
        }
        segment += 1;
        at += 1;
    }
    if open {
        return Some(TopicFlaw::Brace);
    }
    if segment == 0 {
        return Some(TopicFlaw::EmptySegment);
    }
    None
}

/// Whether it is a topic as it stands, without placeholders; usable in constants.
pub(super) const fn is_plain(topic: &str) -> bool {
    let bytes = topic.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'{' {
            return false;
        }
        at += 1;
    }
    flaw(topic).is_none()
}

/// Checks a topic that is known only at run time. Placeholders are not allowed in it.
///
/// # Errors
/// [`TopicError`] says what to change.
pub fn check(topic: &str) -> Result<(), TopicError> {
    let flaw = match flaw(topic) {
        None if topic.contains('{') => TopicFlaw::Character(b'{'),
        None => return Ok(()),
        Some(flaw) => flaw,
    };
    Err(explain(topic, flaw))
}

/// Checks a topic or a template with placeholders.
///
/// # Errors
/// [`TopicError`] says what to change.
pub fn check_template(topic: &str) -> Result<(), TopicError> {
    flaw(topic).map_or(Ok(()), |flaw| Err(explain(topic, flaw)))
}

fn explain(topic: &str, flaw: TopicFlaw) -> TopicError {
    match flaw {
        TopicFlaw::Empty => TopicError::Empty,
        TopicFlaw::EmptySegment => TopicError::EmptySegment(topic.to_owned()),
        TopicFlaw::TooLong => TopicError::TooLong(topic.to_owned()),
        TopicFlaw::Brace => TopicError::Brace(topic.to_owned()),
        TopicFlaw::Character(byte) => TopicError::Character {
            topic: topic.to_owned(),
            // A byte above ASCII is only part of a character: show the whole one.
            character: topic
                .chars()
                .find(|c| !c.is_ascii() || *c == char::from(byte))
                .unwrap_or(char::from(byte)),
        },
    }
}

/// Renders a template with the message's own fields.
///
/// # Errors
/// [`TopicError::Field`] if a value is empty or would add or split a segment.
pub(crate) fn render(
    template: &'static str,
    fields: &[(&'static str, &dyn fmt::Display)],
) -> Result<Cow<'static, str>, TopicError> {
    let mut rendered = String::with_capacity(template.len() + 16);
    for (index, segment) in template.split('.').enumerate() {
        if index > 0 {
            rendered.push('.');
        }
        let Some(name) = placeholder(segment) else {
            rendered.push_str(segment);
            continue;
        };
        let (field, value) = fields
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(field, value)| (*field, value.to_string()))
            .unwrap_or((name, String::new()));
        if value.is_empty() || !value.bytes().all(is_segment_byte) {
            return Err(TopicError::Field {
                template,
                field,
                value,
            });
        }
        rendered.push_str(&value);
    }
    if rendered.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong(rendered));
    }
    Ok(Cow::Owned(rendered))
}

fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn placeholder(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// What a subscription listens to: one topic, or all topics of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPattern(Cow<'static, str>);

impl TopicPattern {
    /// Reads a topic, or a template such as `orders.{region}.placed`.
    ///
    /// # Errors
    /// [`TopicError`] says what to change.
    pub fn parse(template: impl Into<Cow<'static, str>>) -> Result<Self, TopicError> {
        let template = template.into();
        check_template(&template)?;
        Ok(Self(template))
    }

    /// Takes a topic or a template, already checked.
    pub(crate) fn new(template: impl Into<Cow<'static, str>>) -> Self {
        Self(template.into())
    }

    /// The text as written, placeholders included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has placeholders, so that it stands for many topics.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.0.contains('{')
    }

    /// The text with every placeholder replaced by `wildcard`, as AMQP's binding key wants `*`.
    #[must_use]
    pub fn with_wildcard(&self, wildcard: &str) -> String {
        let segments = self.0.split('.');
        segments
            .map(|segment| placeholder(segment).map_or(segment, |_| wildcard))
            .collect::<Vec<_>>()
            .join(".")
    }

    /// Whether `topic` is one of those that this pattern stands for.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if !self.is_pattern() {
            return self.0 == topic;
        }
        let (mut ours, mut theirs) = (self.0.split('.'), topic.split('.'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(our), Some(their)) if placeholder(our).is_some() || our == their => {}
                _ => return false,
            }
        }
    }

    /// What stands in `topic` at the place of the placeholder `name`.
    #[must_use]
    pub fn segment<'t>(&self, topic: &'t str, name: &str) -> Option<&'t str> {
        let at = self
            .0
            .split('.')
            .position(|segment| placeholder(segment) == Some(name))?;
        topic.split('.').nth(at)
    }

    /// The names of the placeholders, in order.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('.').filter_map(placeholder)
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaws_are_found_and_named() {
        let cases = [
            ("", TopicError::Empty),
            (".a", TopicError::EmptySegment(".a".into())),
            ("a..b", TopicError::EmptySegment("a..b".into())),
            ("a.", TopicError::EmptySegment("a.".into())),
            (
                "a b",
                TopicError::Character {
                    topic: "a b".into(),
                    character: ' ',
                },
            ),
            (
                "ä",
                TopicError::Character {
                    topic: "ä".into(),
                    character: 'ä',
                },
            ),
            (
                "a.#",
                TopicError::Character {
                    topic: "a.#".into(),
                    character: '#',
                },
            ),
            ("a.{b", TopicError::Brace("a.{b".into())),
            ("a.b}", TopicError::Brace("a.b}".into())),
            ("a.{}", TopicError::Brace("a.{}".into())),
            ("a.x{b}", TopicError::Brace("a.x{b}".into())),
            ("a.{b}x", TopicError::Brace("a.{b}x".into())),
            ("a.{b.c}", TopicError::Brace("a.{b.c}".into())),
        ];
        for (topic, error) in cases {
            assert_eq!(check_template(topic), Err(error), "{topic:?}");
        }
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        assert_eq!(check(&long), Err(TopicError::TooLong(long.clone())));
        assert_eq!(check_template("orders.{region}.placed-2_x"), Ok(()));
        assert!(check("orders.{region}").is_err());
    }

    #[test]
    fn a_topic_is_plain_where_it_needs_no_rendering_and_no_repair() {
        assert!(is_plain("orders.placed"));
        for topic in ["", "orders.{region}", "a..b", "a b", ".a"] {
            assert!(!is_plain(topic), "{topic:?}");
        }
    }

    #[test]
    fn a_template_renders_its_fields_and_refuses_what_would_split_a_segment() {
        let rendered = render("orders.{region}.{n}", &[("region", &"eu"), ("n", &7)]);
        assert_eq!(rendered.as_deref(), Ok("orders.eu.7"));
        for bad in ["", "a.b", "a b", "*"] {
            assert!(matches!(
                render("orders.{region}", &[("region", &bad)]),
                Err(TopicError::Field {
                    field: "region",
                    ..
                })
            ));
        }
    }

    #[test]
    fn patterns_match_whole_segments_only() {
        let pattern = TopicPattern::new("orders.{region}.placed");
        assert!(pattern.is_pattern());
        assert!(pattern.matches("orders.eu.placed"));
        assert!(!pattern.matches("orders.placed"));
        assert!(!pattern.matches("orders.eu.x.placed"));
        assert_eq!(pattern.segment("orders.eu.placed", "region"), Some("eu"));
        assert_eq!(pattern.segment("orders.eu.placed", "tenant"), None);
        assert_eq!(pattern.with_wildcard("*"), "orders.*.placed");
        assert_eq!(pattern.segments().collect::<Vec<_>>(), ["region"]);
        assert_eq!(TopicPattern::parse("a.b"), Ok(TopicPattern::new("a.b")));
        assert!(TopicPattern::parse("a..b").is_err());
        assert!(TopicPattern::new("a.b").matches("a.b"));
        assert!(!TopicPattern::new("a.b").matches("a.c"));
    }
}
