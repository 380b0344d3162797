//! From the kernel's answers to errors that name what was being done.

use minik8s_core::network::NetworkError;
use std::fmt::Display;

/// Wraps a cause with what was being done to what.
pub(crate) fn failed<E: Display>(operation: &'static str, object: impl Into<String>) -> impl FnOnce(E) -> NetworkError {
    let object = object.into();
    move |cause| NetworkError::Kernel { operation, object, cause: cause.to_string() }
}

/// The error number within an answer of rtnetlink, 0 where it has none.
pub(crate) fn errno(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().abs(),
        _ => 0,
    }
}

/// An answer of rtnetlink as the system words it.
pub(crate) fn reason(error: &rtnetlink::Error) -> String {
    match errno(error) {
        0 => error.to_string(),
        code => std::io::Error::from_raw_os_error(code).to_string(),
    }
}

/// Success also where the answer is one of `codes`: what was asked for is so already.
pub(crate) fn unless(result: Result<(), rtnetlink::Error>, codes: &[i32]) -> Result<(), String> {
    match result {
        Err(error) if !codes.contains(&errno(&error)) => Err(reason(&error)),
        _ => Ok(()),
    }
}
