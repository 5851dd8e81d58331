//! Values that are written as text in quotes: one way to read and to write them all. Never says what a text means.

/// Makes a type that has `parse(&str) -> Option<Self>` and `Display` a value of the configuration.
///
/// `$wanted` is the whole complaint, and ends the line that the user sees: it says what may be written.
macro_rules! text_value {
    ($type:ident, $wanted:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                // By way of a value, so that a number or a list gets the same complaint as a wrong text.
                let value = toml::Value::deserialize(deserializer)?;
                let parsed = value.as_str().and_then($type::parse);
                parsed.ok_or_else(|| <D::Error as serde::de::Error>::custom($wanted))
            }
        }
    };
}

pub(super) use text_value;
