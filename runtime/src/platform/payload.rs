//! An event of AWS Lambda before it is deserialized.

use super::handler::unexpected_event;
use lambda_runtime::Diagnostic;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The text of an event, or why it is not valid JSON.
///
/// Deserializing it never fails: `lambda_runtime` would report the failure under its own error type.
pub(super) struct Payload(Result<Box<RawValue>, String>);

impl Payload {
    pub(super) fn json(&self) -> Result<&str, Diagnostic> {
        match &self.0 {
            Ok(json) => Ok(json.get()),
            Err(error) => Err(unexpected_event(error)),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer);
        Ok(Self(json.map_err(|error| error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_passed_on_as_it_came() {
        let payload: Payload = serde_json::from_str(r#"{ "a" : 1.0 }"#).expect("infallible");
        assert_eq!(payload.json().ok(), Some(r#"{ "a" : 1.0 }"#));
    }

    #[test]
    fn text_that_is_not_json_is_an_invalid_event() {
        let mut text = serde_json::Deserializer::from_str("{oops");
        let payload = Payload::deserialize(&mut text).expect("infallible");
        let error = payload.json().expect_err("not JSON");
        assert_eq!(error.error_type, "Event");
    }
}
