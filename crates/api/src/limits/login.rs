//! What a handler that looks at passwords tells the limits.

use std::time::Duration;

use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER};
use actix_web::{Error, HttpResponse};
use edge::Problem;
use rate_limit::LoginVerdict;
use rate_limit::headers::whole_seconds;

use super::{RateLimit, unavailable};

impl RateLimit {
    /// Asks whether the password of `account` may be looked at, or gives what the client is answered instead: 429 after too many
    /// failures in a row by the account or by the client, 503 when that cannot be known. The attempt counts as a failure, also
    /// when the client goes away, until one of the following is called.
    pub async fn login(&self, account: &str) -> Result<(), Error> {
        match self.limits.inner.login.begin(self.address, account).await {
            LoginVerdict::Admitted(attempt) => {
                self.standing.0.borrow_mut().login = Some(attempt);
                Ok(())
            }
            LoginVerdict::Blocked { retry_after } => Err(refused(blocked(retry_after))),
            LoginVerdict::Unavailable => Err(refused(unavailable())),
        }
    }

    /// The password was right: failures in a row are over.
    pub async fn login_succeeded(&self) {
        // Taken out first: nothing of the request may be borrowed while this waits.
        let attempt = self.standing.0.borrow_mut().login.take();
        if let Some(attempt) = attempt {
            attempt.succeeded().await;
        }
    }

    /// The password was wrong.
    pub fn login_failed(&self) {
        if let Some(attempt) = self.standing.0.borrow_mut().login.take() {
            attempt.failed();
        }
    }

    /// The password could not be looked at, which is nobody's failure.
    pub async fn login_withdrawn(&self) {
        let attempt = self.standing.0.borrow_mut().login.take();
        if let Some(attempt) = attempt {
            attempt.withdrawn().await;
        }
    }
}

fn refused(answer: HttpResponse) -> Error {
    InternalError::from_response("an attempt to log in is not admitted", answer).into()
}

/// The same whether the account exists or not, and whether the account or the client is blocked.
fn blocked(retry_after: Duration) -> HttpResponse {
    Problem::new(StatusCode::TOO_MANY_REQUESTS)
        .kind("https://iana.org/assignments/http-problem-types#abnormal-usage-detected")
        .title("Request not satisfied due to detection of abnormal request pattern")
        .header(RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after).max(1)))
        .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .response()
}
