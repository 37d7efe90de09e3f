//! HTTP/1.1 around [`State::respond`].

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::respond::Answer;
use super::{ServerConfig, State};
use crate::api::error::ApiError;

/// Serves the API on `listener` until `end` is ready; then requests under way get their answers, and it returns.
/// Failures are logged and cost one connection.
pub async fn serve(listener: TcpListener, state: Arc<State>, end: impl Future<Output = ()>) {
    crate::panics::are_caught();
    let places = Arc::new(Semaphore::new(state.config.connections));
    let (ending, ended) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut end = pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(failure) => {
                tracing::warn!(error = &failure as &dyn std::error::Error, "accept failed");
                // Out of descriptors or memory: waiting is what helps.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("too many connections");
            continue;
        };
        let (state, ended) = (Arc::clone(&state), ended.clone());
        connections.spawn(async move {
            if let Err(failure) = connection(tcp, state, ended).await {
                tracing::debug!(%failure, "connection failed");
            }
            drop(place);
        });
    }
    drop(listener);
    ending.send_replace(true);
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(state.config.end_time, rest)
        .await
        .is_err()
    {
        tracing::warn!("requests under way were cut off");
    }
}

async fn connection(
    tcp: TcpStream,
    state: Arc<State>,
    mut ended: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tcp.set_nodelay(true)?;
    let config = state.config;
    let handle = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(handle(request, state).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.head_time)
            .max_buf_size(config.head_bytes)
            .max_headers(config.head_fields)
            .half_close(true)
            .serve_connection(TokioIo::new(tcp), handle)
    );
    tokio::select! {
        served = &mut connection => return Ok(served?),
        _ = ended.wait_for(|ended| *ended) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await?;
    Ok(())
}

async fn handle(request: Request<Incoming>, state: Arc<State>) -> Response<Full<Bytes>> {
    let request_id = uuid::Uuid::new_v4().to_string();
    let (head, body) = request.into_parts();
    if let Some(response) = metadata(&head, &state).await {
        return response.map(Full::new);
    }
    let answer = match read(body, &state.config).await {
        Ok(body) => answer(head, body, state, request_id.clone()).await,
        Err(error) => Answer::error(&error, &request_id),
    };
    crate::fault::point("request.served");
    tracing::debug!(
        request_id,
        status = answer.status.as_u16(),
        outcome = answer.outcome,
        "answer"
    );
    let mut response = Response::new(Full::from(answer.document));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    let fixed = HeaderValue::from_static;
    headers.insert(header::CONTENT_TYPE, fixed("text/xml;charset=UTF-8"));
    headers.insert(header::SERVER, fixed("AmazonEC2"));
    headers.insert(header::CACHE_CONTROL, fixed("no-cache, no-store"));
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// The metadata service's answer, if the request is for it. It reads records and writes none.
async fn metadata(head: &http::request::Parts, state: &Arc<State>) -> Option<Response<Bytes>> {
    if !state.has_metadata(head) {
        return None;
    }
    let (head, state) = (head.clone(), Arc::clone(state));
    tokio::task::spawn_blocking(move || state.metadata(&head))
        .await
        .ok()?
}

/// Runs the request where it may block; a panic is a failure of this request alone.
async fn answer(
    head: http::request::Parts,
    body: Bytes,
    state: Arc<State>,
    request_id: String,
) -> Answer {
    let id = request_id.clone();
    let served = tokio::task::spawn_blocking(move || state.respond(&head, &body, &id)).await;
    served.unwrap_or_else(|failure| {
        tracing::error!(request_id, %failure, "an action panicked");
        let error = ApiError::internal("An internal error has occurred");
        Answer::error(&error, &request_id)
    })
}

async fn read(body: Incoming, config: &ServerConfig) -> Result<Bytes, ApiError> {
    let whole = Limited::new(body, config.body_bytes).collect();
    match tokio::time::timeout(config.body_time, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::new(
            "RequestEntityTooLarge",
            format!("The request has more than {} bytes", config.body_bytes),
        )),
        Ok(Err(error)) => Err(ApiError::new(
            "InvalidRequest",
            format!("The body of the request cannot be read: {error}"),
        )),
        Err(_) => Err(ApiError::new(
            "RequestTimeout",
            "The body of the request did not come in time",
        )),
    }
}
