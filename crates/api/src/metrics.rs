//! `/metrics` on the admin listener: the figures of all workers as Prometheus text.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::web::Data;
use telemetry::{Registry, Snapshot};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::error::ApiError;

/// The supervisor answers within milliseconds, unless it is being replaced.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the figures come from.
#[derive(Debug, Clone)]
pub enum Metrics {
    /// From this process alone, which nobody asks for others.
    Own(Registry),
    /// From whoever receives the questions: each wants the text of all workers, and dropping it is a refusal.
    Shared(mpsc::Sender<oneshot::Sender<String>>),
}

/// The metrics of this process: those of `registry` and what the kernel says.
pub fn own_metrics(registry: &Registry) -> Snapshot {
    let mut snapshot = registry.snapshot();
    snapshot.merge(&telemetry::process_snapshot());
    snapshot
}

/// Never the figures of some workers alone: their counters would seem to have fallen.
pub(crate) async fn show(metrics: Data<Metrics>) -> Result<HttpResponse, ApiError> {
    let text = match &**metrics {
        Metrics::Own(registry) => own_metrics(registry).render(),
        Metrics::Shared(questions) => ask(questions).await?,
    };
    let mut response = HttpResponse::Ok().body(text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Snapshot::CONTENT_TYPE));
    Ok(response)
}

async fn ask(questions: &mpsc::Sender<oneshot::Sender<String>>) -> Result<String, ApiError> {
    let unavailable = |reason: &str| ApiError::Unavailable(format!("the metrics of all workers: {reason}"));
    let (question, answer) = oneshot::channel();
    questions.try_send(question).map_err(|_| unavailable("nobody takes the question"))?;
    match timeout(PATIENCE, answer).await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(_)) => Err(unavailable("the supervisor is gone")),
        Err(_) => Err(unavailable("the supervisor does not answer")),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError;
    use actix_web::body::to_bytes;
    use actix_web::http::StatusCode;
    use actix_web::http::header::RETRY_AFTER;

    use super::*;

    async fn text(response: HttpResponse) -> String {
        let body = to_bytes(response.into_body()).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// Asks with `questions` and expects to be told to come back.
    async fn assert_unavailable(questions: mpsc::Sender<oneshot::Sender<String>>) {
        let error = show(Data::new(Metrics::Shared(questions))).await.unwrap_err();
        let response = error.error_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{error}");
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "application/problem+json");
        assert!(response.headers().contains_key(RETRY_AFTER));
    }

    #[tokio::test]
    async fn a_process_on_its_own_shows_its_own_metrics() {
        let registry = Registry::new();
        registry.counter("a_total", "A.", &[]).add(3);
        let response = show(Data::new(Metrics::Own(registry))).await.unwrap();
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), Snapshot::CONTENT_TYPE);
        let text = text(response).await;
        assert!(text.contains("\na_total 3\n") && text.contains("\nprocess_threads "), "{text}");
    }

    #[tokio::test]
    async fn the_text_of_all_is_passed_on_as_it_is() {
        let (questions, mut asked) = mpsc::channel::<oneshot::Sender<String>>(1);
        let answer = async { asked.recv().await.unwrap().send("a_total 7\n".to_owned()).unwrap() };
        let (response, ()) = tokio::join!(show(Data::new(Metrics::Shared(questions))), answer);
        assert_eq!(text(response.unwrap()).await, "a_total 7\n");
    }

    #[tokio::test]
    async fn without_an_answer_nothing_partial_is_shown() {
        let (questions, asked) = mpsc::channel(1);
        // One that nobody has answered yet, and one for which there is no room behind it.
        assert_unavailable(questions.clone()).await;
        assert_unavailable(questions.clone()).await;
        drop(asked);
        assert_unavailable(questions).await;
    }

    #[tokio::test]
    async fn a_question_that_is_dropped_is_not_waited_for() {
        let (questions, mut asked) = mpsc::channel(1);
        let refuse = async { drop(asked.recv().await) };
        let (response, ()) = tokio::join!(timeout(PATIENCE / 2, assert_unavailable(questions)), refuse);
        response.expect("the answer is given at once");
    }
}
