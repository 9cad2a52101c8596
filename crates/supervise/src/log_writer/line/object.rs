//! Tells lines that are a JSON object from others, without building it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Deeper ones count as text: a reader's own limit would refuse the whole line for them.
const DEEPEST: u8 = 64;

/// Whether every JSON parser takes `line` as an object.
pub(super) fn is_object(line: &str) -> bool {
    if !line.trim_start().starts_with('{') {
        return false;
    }
    let mut json = serde_json::Deserializer::from_str(line);
    Checked { levels_left: DEEPEST }.deserialize(&mut json).is_ok() && json.end().is_ok()
}

/// Visits a value and forgets it. Unlike `serde::de::IgnoredAny` it decodes strings and numbers, so that what it takes is
/// taken by others, too.
#[derive(Clone, Copy)]
struct Checked {
    levels_left: u8,
}

impl Checked {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let levels_left = self.levels_left.checked_sub(1).ok_or_else(|| E::custom("too deep"))?;
        Ok(Self { levels_left })
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let item = self.deeper()?;
        while items.next_element_seed(item)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let member = self.deeper()?;
        while members.next_entry_seed(member, member)?.is_some() {}
        Ok(())
    }
}
