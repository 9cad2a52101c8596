//! The bench's floor: actix-web answering one constant body on every core, nothing else.
//!
//! Environment: `BENCH_PORT`, `BENCH_WORKERS`, `BENCH_BODY` (the bytes to answer).

use actix_web::http::header;
use actix_web::web::{Bytes, Data};
use actix_web::{App, HttpResponse, HttpServer, get};

#[get("/livez")]
async fn hello(body: Data<Bytes>) -> HttpResponse {
    HttpResponse::Ok().content_type(header::ContentType::plaintext()).body(Bytes::clone(&body))
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let port = variable("BENCH_PORT")?.parse().map_err(std::io::Error::other)?;
    let workers = variable("BENCH_WORKERS")?.parse().map_err(std::io::Error::other)?;
    let body = Data::new(Bytes::from(variable("BENCH_BODY")?));
    HttpServer::new(move || App::new().app_data(body.clone()).service(hello))
        .workers(workers)
        .bind(("127.0.0.1", port))?
        .run()
        .await
}

fn variable(name: &str) -> std::io::Result<String> {
    std::env::var(name).map_err(|error| std::io::Error::other(format!("{name}: {error}")))
}
