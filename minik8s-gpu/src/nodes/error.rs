//! What an answer of the API means to a job.

use minik8s_core::api::{ApiError, Reason};
use minik8s_core::job::{JobError, Outage};

fn is_outage(error: &ApiError) -> bool {
    matches!(
        error.reason,
        Reason::ServiceUnavailable | Reason::Timeout | Reason::ServerTimeout | Reason::TooManyRequests
    )
}

/// Of a question about anything.
pub(super) fn odd(error: ApiError) -> JobError {
    let why = error.message.clone();
    if is_outage(&error) { JobError::Away { what: Outage::SchedulerDown, why } } else { JobError::Odd(why) }
}

/// Of a question that a node answers.
pub(super) fn away(error: ApiError) -> JobError {
    let why = error.message.clone();
    if is_outage(&error) { JobError::Away { what: Outage::Lost, why } } else { JobError::Odd(why) }
}

/// Of handing over: what the API does not take as it is, it never will.
pub(super) fn refused(error: ApiError) -> JobError {
    let told = |field: &str| error.details.causes.iter().any(|cause| cause.field.contains(field));
    match error.reason {
        Reason::Invalid | Reason::BadRequest | Reason::Forbidden => {
            let known =
                [(".image", "image"), ("nvidia.com/gpu", "gpus"), ("memory", "memory"), ("cpu", "cpus_per_task")];
            let field = known.into_iter().find(|(part, _)| told(part)).map(|(_, field)| field);
            JobError::Refused { field, why: error.message }
        }
        // It may have arrived.
        Reason::Timeout | Reason::ServerTimeout => JobError::Unclear(error.message),
        _ => odd(error),
    }
}
