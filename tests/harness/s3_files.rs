//! A store that speaks S3 over the files below a directory: each directory in it is a bucket.
//!
//! Also compiled into the tests of `calotype-blob` and `calotype-objects`, which need the same.

use std::path::Path;

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

/// Starts one with an access key, the id and the secret; its URL. It ends with the runtime that this runs on.
pub async fn serve(directory: &Path, (id, secret): (&str, &str)) -> String {
    let files = s3s_fs::FileSystem::new(directory).expect("a store");
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(id, secret));
    let service = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service.clone());
            tokio::spawn(connection);
        }
    });
    format!("http://{address}")
}
