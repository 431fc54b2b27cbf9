//! The application behind a listener, with one type for all of its outcomes.

use std::{fmt, rc::Rc};

use actix_http::{Request, Response, body::MessageBody};
use actix_service::{Service, ServiceFactory};
use actix_web::{body::BoxBody, dev::AppConfig};
use futures_util::future::{FutureExt as _, LocalBoxFuture};

/// The application, which answers requests.
pub(super) type Handler = Rc<dyn Fn(Request) -> LocalBoxFuture<'static, Response<BoxBody>>>;

/// Makes the application's service, and gives every outcome of it one type.
pub(super) async fn make_handler<S, B>(app: S) -> Result<Handler, ()>
where
    S: ServiceFactory<Request, Config = AppConfig, Error = actix_web::Error>,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>>,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let service = app.new_service(AppConfig::default()).await.map_err(|error| {
        tracing::error!(?error, "the server's application can't be made");
    })?;
    Ok(Rc::new(move |request| {
        let answer = service.call(request);
        let answer = async move {
            match answer.await {
                Ok(response) => {
                    let response: Response<B> = response.into();
                    response.map_into_boxed_body()
                }
                Err(error) => error.into(),
            }
        };
        answer.boxed_local()
    }))
}
