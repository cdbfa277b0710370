//! The platform's replies, with the texts of the real platform.

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use serde_json::{Value, json};

/// A complete HTTP response.
#[derive(Debug)]
pub(super) struct Reply {
    // Boxed, because it is also the error type of checks that mostly succeed.
    response: Box<Response<Full<Bytes>>>,
}

impl Reply {
    fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
        Self {
            response: Box::new(response),
        }
    }

    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(super) fn text(text: &'static str) -> Self {
        Self::new(StatusCode::OK, "text/plain", text)
    }

    /// An event; its payload is passed on byte for byte.
    pub(super) fn event(payload: Bytes) -> Self {
        Self::new(StatusCode::OK, "application/json", payload)
    }

    pub(super) fn accepted() -> Self {
        Self::json(StatusCode::ACCEPTED, &json!({"status": "OK"}))
    }

    fn error(status: StatusCode, kind: &str, message: &str) -> Self {
        Self::json(status, &json!({"errorMessage": message, "errorType": kind}))
    }

    pub(super) fn forbidden(kind: &str, message: &str) -> Self {
        Self::error(StatusCode::FORBIDDEN, kind, message)
    }

    pub(super) fn invalid_state(from: &str, to: &str) -> Self {
        let message = format!(
            "State transition from {from} to {to} failed for runtime. Error: State transition is not allowed"
        );
        Self::forbidden("InvalidStateTransition", &message)
    }

    pub(super) fn invalid_request_id() -> Self {
        Self::error(
            StatusCode::BAD_REQUEST,
            "InvalidRequestID",
            "Invalid request ID",
        )
    }

    pub(super) fn invalid_response_mode() -> Self {
        let message = "Invalid function response mode";
        Self::error(
            StatusCode::BAD_REQUEST,
            "InvalidFunctionResponseMode",
            message,
        )
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn truncated() -> Self {
        let message = "HTTP request detected as truncated";
        Self::error(StatusCode::BAD_REQUEST, "TruncatedHTTPRequest", message)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("Exceeded maximum allowed payload size ({limit} bytes).");
        Self::error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            &message,
        )
    }

    pub(super) fn timed_out() -> Self {
        Self::error(StatusCode::GONE, "InvokeTimeout", "Invoke timeout")
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "text/plain", "404 page not found\n")
    }

    /// Adds a header, unless the value is empty or invalid in HTTP.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let (false, Ok(value)) = (value.is_empty(), value.try_into()) {
            self.response
                .headers_mut()
                .insert(http::HeaderName::from_static(name), value);
        }
        self
    }

    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        *self.response
    }
}
