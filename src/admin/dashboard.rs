//! The page for people. Its files are part of the program; what it shows, it asks for over this interface,
//! as anybody else would. Nothing is gathered for it while nobody looks.

use axum::Router;
use axum::http::header;
use axum::routing::get;

/// Where the page is.
pub(super) const PAGE: &str = "/";

/// Its own files and connections, nothing else, and no text of anybody as code.
const RULES: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, content type and text of every file.
const ASSETS: &[(&str, &str, &str)] = &[
    (PAGE, "text/html; charset=utf-8", include_str!("dashboard/index.html")),
    ("/dashboard/style.css", "text/css; charset=utf-8", include_str!("dashboard/style.css")),
    ("/dashboard/icon.svg", "image/svg+xml", include_str!("dashboard/icon.svg")),
    ("/dashboard/main.js", SCRIPT, include_str!("dashboard/main.js")),
    ("/dashboard/dom.js", SCRIPT, include_str!("dashboard/dom.js")),
    ("/dashboard/door.js", SCRIPT, include_str!("dashboard/door.js")),
    ("/dashboard/rates.js", SCRIPT, include_str!("dashboard/rates.js")),
    ("/dashboard/chart.js", SCRIPT, include_str!("dashboard/chart.js")),
    ("/dashboard/workers.js", SCRIPT, include_str!("dashboard/workers.js")),
    ("/dashboard/policy.js", SCRIPT, include_str!("dashboard/policy.js")),
    ("/dashboard/tail.js", SCRIPT, include_str!("dashboard/tail.js")),
];

/// Whether a path is one of the page's files.
pub(super) fn is_asset(path: &str) -> bool {
    ASSETS.iter().any(|(asset, ..)| *asset == path)
}

pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |routes, &(path, kind, text)| {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, RULES),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::REFERRER_POLICY, "no-referrer"),
            // Another version of the program may be behind the same address.
            (header::CACHE_CONTROL, "no-cache"),
        ];
        routes.route(path, get(async move || (headers, text)))
    })
}
