//! Query strings: scalars, lists, and structs whose fields are the keys.

use std::fmt::Display;

use serde::ser::{self, Impossible, Serialize, Serializer};

use super::encode;

/// Adds `value` to `query`: a scalar as `name=value`, a list as one pair for each item, a struct or
/// map as one pair for each of its fields, and nothing where there is nothing.
pub(super) fn add<T: Serialize + ?Sized>(
    query: &mut String,
    name: &str,
    value: &T,
) -> Result<(), String> {
    let pairs = Pairs {
        query,
        name,
        inside: false,
    };
    value.serialize(pairs).map_err(|Flaw(text)| text)
}

#[derive(Debug)]
struct Flaw(String);

impl Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Flaw {}

impl ser::Error for Flaw {
    fn custom<T: Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

/// Writes the pairs of one value.
struct Pairs<'q> {
    query: &'q mut String,
    name: &'q str,
    /// Whether it stands in a struct or a list, where no further struct can.
    inside: bool,
}

impl Pairs<'_> {
    fn pair(self, value: &str) -> Result<(), Flaw> {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        encode::component(self.query, self.name);
        self.query.push('=');
        encode::component(self.query, value);
        Ok(())
    }

    fn nested<T>(&self, what: &str) -> Result<T, Flaw> {
        Err(Flaw(format!(
            "`{}` holds {what}, which no query string can",
            self.name
        )))
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, value: $type) -> Result<(), Flaw> {
            self.pair(&value.to_string())
        })*
    };
}

impl<'q> Serializer for Pairs<'q> {
    type Ok = ();
    type Error = Flaw;
    type SerializeSeq = Items<'q>;
    type SerializeTuple = Items<'q>;
    type SerializeTupleStruct = Items<'q>;
    type SerializeTupleVariant = Impossible<(), Flaw>;
    type SerializeMap = Fields<'q>;
    type SerializeStruct = Fields<'q>;
    type SerializeStructVariant = Impossible<(), Flaw>;

    scalars! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_i128: i128, serialize_u8: u8, serialize_u16: u16,
        serialize_u32: u32, serialize_u64: u64, serialize_u128: u128, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char
    }

    fn serialize_str(self, value: &str) -> Result<(), Flaw> {
        self.pair(value)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Flaw> {
        self.nested("bytes")
    }

    fn serialize_none(self) -> Result<(), Flaw> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Flaw> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Flaw> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Flaw> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Flaw> {
        self.pair(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Flaw> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Flaw> {
        self.nested("an enum with values")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'q>, Flaw> {
        Ok(Items(self))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'q>, Flaw> {
        Ok(Items(self))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'q>, Flaw> {
        Ok(Items(self))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Flaw> {
        self.nested("an enum with values")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields<'q>, Flaw> {
        if self.inside {
            return self.nested("a map");
        }
        Ok(Fields {
            query: self.query,
            key: String::new(),
        })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'q>, Flaw> {
        if self.inside {
            return self.nested("a struct");
        }
        Ok(Fields {
            query: self.query,
            key: String::new(),
        })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Flaw> {
        self.nested("an enum with values")
    }
}

/// The items of a list: the name once for each.
struct Items<'q>(Pairs<'q>);

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Flaw> {
        value.serialize(Pairs {
            query: self.0.query,
            name: self.0.name,
            inside: true,
        })
    }
}

impl ser::SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Flaw;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Flaw> {
        self.item(value)
    }

    fn end(self) -> Result<(), Flaw> {
        Ok(())
    }
}

impl ser::SerializeTuple for Items<'_> {
    type Ok = ();
    type Error = Flaw;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Flaw> {
        self.item(value)
    }

    fn end(self) -> Result<(), Flaw> {
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Items<'_> {
    type Ok = ();
    type Error = Flaw;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Flaw> {
        self.item(value)
    }

    fn end(self) -> Result<(), Flaw> {
        Ok(())
    }
}

/// The fields of a struct or the entries of a map.
struct Fields<'q> {
    query: &'q mut String,
    key: String,
}

impl Fields<'_> {
    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Flaw> {
        value.serialize(Pairs {
            query: self.query,
            name,
            inside: true,
        })
    }
}

impl ser::SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Flaw;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Flaw> {
        self.field(name, value)
    }

    fn end(self) -> Result<(), Flaw> {
        Ok(())
    }
}

impl ser::SerializeMap for Fields<'_> {
    type Ok = ();
    type Error = Flaw;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Flaw> {
        let mut pair = String::new();
        key.serialize(Pairs {
            query: &mut pair,
            name: "",
            inside: true,
        })?;
        // Written as `=key`, encoded, which reads back without loss.
        self.key = encode::decode(pair.strip_prefix('=').unwrap_or_default());
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Flaw> {
        let key = std::mem::take(&mut self.key);
        self.field(&key, value)
    }

    fn end(self) -> Result<(), Flaw> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum State {
        InTransit,
    }

    #[derive(Serialize)]
    struct Filter<'a> {
        text: &'a str,
        state: Option<State>,
        page: Option<u32>,
        #[serde(rename = "tag")]
        tags: Vec<&'a str>,
    }

    fn written<T: Serialize>(name: &str, value: T) -> Result<String, String> {
        let mut query = String::new();
        add(&mut query, name, &value)?;
        Ok(query)
    }

    #[test]
    fn scalars_lists_and_structs_become_pairs() {
        assert_eq!(written("n", 7).unwrap(), "n=7");
        assert_eq!(
            written("a b", "x&y=ü/?").unwrap(),
            "a%20b=x%26y%3D%C3%BC%2F%3F"
        );
        assert_eq!(written("n", None::<u8>).unwrap(), "");
        assert_eq!(written("n", [1, 2]).unwrap(), "n=1&n=2");
        let filter = Filter {
            text: "blue",
            state: Some(State::InTransit),
            page: None,
            tags: vec!["new", "a+b"],
        };
        assert_eq!(
            written("ignored", &filter).unwrap(),
            "text=blue&state=in_transit&tag=new&tag=a%2Bb"
        );
        let map = BTreeMap::from([("a&b", 1), ("c", 2)]);
        assert_eq!(written("ignored", map).unwrap(), "a%26b=1&c=2");
    }

    #[test]
    fn what_no_query_can_hold_is_refused() {
        let nested = BTreeMap::from([("a", BTreeMap::from([("b", 1)]))]);
        let error = written("x", nested).unwrap_err();
        assert_eq!(error, "`a` holds a map, which no query string can");
        assert!(written("x", Some(Err::<(), _>("e"))).is_err());
    }
}
