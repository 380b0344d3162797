//! From what people write to what runs. Everything that can be known to be wrong is told, each by its field.

use super::checks::{Check, CheckError};
use super::program::{
    Action, Catch, Condition, Jitter, Millis, Next, Program, Retry, Rule, Step, Target, Task, WaitFor, Workflow,
};
use super::spec::{
    CatchSpec, ChoiceSpec, MapSpec, ParallelSpec, PassSpec, ProgramSpec, RetrySpec, RuleSpec, StepSpec, TaskSpec,
    WaitSpec, WorkflowSpec,
};
use super::{graph, short};
use crate::expr::{Expr, Path, Place, Template};
use jiff::Timestamp;
use minik8s_core::server::FieldErrors;
use serde_json::Value;

/// What expressions may use.
pub const VARIABLES: [&str; 2] = ["input", "run"];
const MAX_STEPS: usize = 500;
const MAX_NESTING: usize = 8;
/// Steps that a run enters where its workflow does not say.
const DEFAULT_RUN_STEPS: u64 = 10_000;
const MAX_RUN_STEPS: i64 = 1_000_000;
/// Times beyond a year are mistakes.
const MAX_SECONDS: f64 = 366.0 * 24.0 * 3600.0;

/// Makes a program of a workflow.
///
/// # Errors
/// Everything that is wrong, by field.
pub fn compile(spec: &WorkflowSpec) -> Result<Workflow, FieldErrors> {
    let mut errors = FieldErrors::default();
    let is_short = short::is_short(spec);
    let program = if is_short {
        if !spec.steps.is_empty() || !spec.start_at.is_empty() {
            errors.forbidden("spec.steps", "a workflow of workflowNodes has no steps");
        }
        short::lengthen(spec, &mut errors)
    } else {
        ProgramSpec { start_at: spec.start_at.clone(), steps: spec.steps.clone() }
    };
    let input = match (&spec.input, &spec.entry_params) {
        (Some(input), None) => input.clone(),
        (None, Some(params)) => short::input(params, &mut errors),
        (None, None) => Value::Null,
        (Some(_), Some(_)) => {
            errors.forbidden("spec.entryParams", "spec.input says the same");
            Value::Null
        }
    };
    let mut compiler = Compiler { errors, steps: 0 };
    // What is wrong with a node's kind already leaves it empty: its other complaints would only confuse.
    let broken = is_short && !compiler.errors.is_empty();
    let body = if broken { Program::default() } else { compiler.program("spec", &program, 0) };
    let timeout = compiler.seconds("spec.timeoutSeconds", spec.timeout_seconds);
    let max_steps =
        compiler.count("spec.maxSteps", spec.max_steps, 1, MAX_RUN_STEPS).map_or(DEFAULT_RUN_STEPS, i64::unsigned_abs);
    compiler.count("spec.keepFinished", spec.keep_finished, 0, 1_000_000);
    let mut errors = compiler.errors;
    if is_short {
        errors.0.iter_mut().for_each(|cause| cause.field = short::field(&cause.field));
    }
    if errors.is_empty() { Ok(Workflow { body, input, timeout, max_steps }) } else { Err(errors) }
}

struct Compiler {
    errors: FieldErrors,
    steps: usize,
}

impl Compiler {
    fn program(&mut self, place: &str, spec: &ProgramSpec, nesting: usize) -> Program {
        let (list, before) = (format!("{place}.steps"), self.errors.0.len());
        if nesting > MAX_NESTING {
            self.errors.forbidden(list, &format!("steps stand within each other at most {MAX_NESTING} deep"));
            return Program::default();
        }
        self.steps += spec.steps.len();
        if self.steps > MAX_STEPS {
            self.errors.forbidden(list, &format!("a workflow has at most {MAX_STEPS} steps"));
            return Program::default();
        }
        let mut program = Program { start: spec.start_at.clone(), ..Program::default() };
        for (index, step) in spec.steps.iter().enumerate() {
            let at = format!("{list}[{index}]");
            self.name(&format!("{at}.name"), &step.name);
            let compiled = self.step(&at, step, nesting);
            if program.steps.insert(step.name.clone(), compiled).is_some() {
                self.errors.duplicate(format!("{at}.name"), &Value::from(step.name.clone()));
            } else {
                program.order.push(step.name.clone());
            }
        }
        self.ways(place, spec, &program, before);
        program
    }

    fn name(&mut self, field: &str, name: &str) {
        if name.is_empty() {
            self.errors.required(field, "steps lead to each other by name");
        } else if name.len() > 63 || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            self.errors.invalid(field, &name.into(), "must be at most 63 letters, digits, '-', '_' and '.'");
        }
    }

    /// Whether every way leads somewhere, every step is on one, and every one ends.
    fn ways(&mut self, place: &str, spec: &ProgramSpec, program: &Program, before: usize) {
        let start = format!("{place}.startAt");
        if spec.steps.is_empty() {
            self.errors.required(format!("{place}.steps"), "a workflow has at least one step");
        } else if spec.start_at.is_empty() {
            self.errors.required(start, "the first step");
        } else if !program.steps.contains_key(&spec.start_at) {
            self.errors.not_found(start, &spec.start_at);
        }
        for (index, step) in spec.steps.iter().enumerate() {
            let at = format!("{place}.steps[{index}]");
            let rules = step.choice.iter().flat_map(|c| c.rules.iter().enumerate());
            let mut ways: Vec<(String, &str)> = vec![(format!("{at}.next"), &step.next)];
            ways.extend(rules.map(|(i, rule)| (format!("{at}.choice.rules[{i}].next"), rule.next.as_str())));
            ways.extend(step.choice.iter().map(|c| (format!("{at}.choice.default"), c.default.as_str())));
            ways.extend(step.catch.iter().enumerate().map(|(i, c)| (format!("{at}.catch[{i}].next"), c.next.as_str())));
            for (field, next) in ways.into_iter().filter(|(_, next)| !next.is_empty()) {
                if !program.steps.contains_key(next) {
                    self.errors.not_found(field, next);
                }
            }
        }
        // A step that is wrong leads elsewhere than it will: what follows from that would only confuse.
        if self.errors.0.len() > before {
            return;
        }
        let index = |name: &str| spec.steps.iter().position(|step| step.name == name).unwrap_or_default();
        let unreachable = graph::unreachable(program);
        for name in &unreachable {
            let why = format!("cannot be reached from {}", spec.start_at);
            self.errors.invalid(format!("{place}.steps[{}].name", index(name)), &(*name).into(), &why);
        }
        for name in graph::endless(program).into_iter().filter(|name| !unreachable.contains(name)) {
            let field = format!("{place}.steps[{}].name", index(name));
            self.errors.invalid(field, &name.into(), "is in a loop, or leads to one, that has no way out");
        }
    }

    fn step(&mut self, at: &str, spec: &StepSpec, nesting: usize) -> Step {
        let action = self.action(at, spec, nesting);
        self.only_where_it_means_something(at, spec);
        let parameters = spec.parameters.as_ref().and_then(|value| self.template(&format!("{at}.parameters"), value));
        let retry = spec.retry.iter().enumerate().map(|(i, r)| self.retry(&format!("{at}.retry[{i}]"), r)).collect();
        let catch = spec.catch.iter().enumerate().map(|(i, c)| self.catch(&format!("{at}.catch[{i}]"), c)).collect();
        Step {
            name: spec.name.clone(),
            action,
            input: self.path(&format!("{at}.inputPath"), &spec.input_path),
            parameters,
            result: self.place(&format!("{at}.resultPath"), &spec.result_path),
            output: self.path(&format!("{at}.outputPath"), &spec.output_path),
            timeout: self.seconds(&format!("{at}.timeoutSeconds"), spec.timeout_seconds),
            retry,
            catch,
            next: if spec.next.is_empty() { Next::End } else { Next::Step(spec.next.clone()) },
        }
    }

    fn action(&mut self, at: &str, spec: &StepSpec, nesting: usize) -> Action {
        let given = [
            ("task", spec.task.is_some()),
            ("choice", spec.choice.is_some()),
            ("parallel", spec.parallel.is_some()),
            ("map", spec.map.is_some()),
            ("wait", spec.wait.is_some()),
            ("pass", spec.pass.is_some()),
            ("fail", spec.fail.is_some()),
            ("succeed", spec.succeed.is_some()),
        ];
        let given: Vec<&str> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        match given.as_slice() {
            [] => self.errors.required(at, "exactly one of task, choice, parallel, map, wait, pass, fail, succeed"),
            [_] => {}
            [first, others @ ..] => {
                let why = format!("the step is a {first} already: a step is one thing");
                others.iter().for_each(|other| self.errors.forbidden(format!("{at}.{other}"), &why));
            }
        }
        if let Some(task) = &spec.task {
            self.task(&format!("{at}.task"), task, spec)
        } else if let Some(choice) = &spec.choice {
            self.choice(&format!("{at}.choice"), choice)
        } else if let Some(parallel) = &spec.parallel {
            self.parallel(&format!("{at}.parallel"), parallel, nesting)
        } else if let Some(map) = &spec.map {
            self.map(&format!("{at}.map"), map, nesting)
        } else if let Some(wait) = &spec.wait {
            self.wait(&format!("{at}.wait"), wait)
        } else if let Some(PassSpec { value }) = &spec.pass {
            Action::Pass(value.as_ref().and_then(|value| self.template(&format!("{at}.pass.value"), value)))
        } else if let Some(fail) = &spec.fail {
            if fail.error.is_empty() {
                self.errors.required(format!("{at}.fail.error"), "a name for the error");
            }
            Action::Fail { error: fail.error.clone(), cause: fail.cause.clone() }
        } else {
            Action::Succeed
        }
    }

    /// Fields that would be silently ignored are refused.
    fn only_where_it_means_something(&mut self, at: &str, spec: &StepSpec) {
        let goes_on = spec.choice.is_none() && spec.fail.is_none() && spec.succeed.is_none();
        let can_fail = spec.task.is_some() || spec.parallel.is_some() || spec.map.is_some();
        match (goes_on, spec.next.is_empty(), spec.end) {
            (true, true, false) => self.errors.required(format!("{at}.next"), "the step after it, or end: true"),
            (true, false, true) => self.errors.forbidden(format!("{at}.end"), "the step has a next one"),
            (false, false, _) => {
                self.errors.forbidden(format!("{at}.next"), "such a step leads on in its own way, or not at all")
            }
            (false, _, true) => {
                self.errors.forbidden(format!("{at}.end"), "such a step ends, or leads on, in its own way")
            }
            _ => {}
        }
        let table = [
            ("retry", !spec.retry.is_empty(), can_fail, "a task, a parallel or a map"),
            ("timeoutSeconds", spec.timeout_seconds.is_some(), can_fail, "a task, a parallel or a map"),
            ("heartbeatSeconds", spec.heartbeat_seconds.is_some(), spec.task.is_some(), "a task"),
            ("parameters", spec.parameters.is_some(), goes_on, "a step that leads on"),
            ("resultPath", !spec.result_path.is_empty(), goes_on, "a step that leads on"),
            ("catch", !spec.catch.is_empty(), spec.fail.is_none() && spec.succeed.is_none(), "a step that leads on"),
        ];
        for (field, given, fits, what) in table {
            if given && !fits {
                self.errors.forbidden(format!("{at}.{field}"), &format!("only {what} has it"));
            }
        }
    }

    fn task(&mut self, at: &str, spec: &TaskSpec, step: &StepSpec) -> Action {
        let given = [spec.function.is_some(), spec.http.is_some(), spec.job.is_some(), spec.gpu_job.is_some()];
        if given.iter().filter(|is| **is).count() != 1 {
            self.errors.required(at, "exactly one of function, http, job, gpuJob");
        }
        let place = at.strip_suffix(".task").unwrap_or(at);
        let heartbeat = self.seconds(&format!("{place}.heartbeatSeconds"), step.heartbeat_seconds);
        let target = if let Some(function) = &spec.function {
            if function.name.is_empty() {
                self.errors.required(format!("{at}.function.name"), "the Function to call");
            }
            for (field, name) in [("name", &function.name), ("namespace", &function.namespace)] {
                if !name.is_empty() {
                    let complaints = minik8s_core::api::names::dns_label(name);
                    self.errors.complaints(&format!("{at}.function.{field}"), name, complaints);
                }
            }
            Target::Function(function.clone())
        } else if let Some(http) = &spec.http {
            let uri = http.url.parse::<http::Uri>().ok();
            let fits = |uri: http::Uri| {
                matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
            };
            if !uri.is_some_and(fits) {
                let what = "must be http://HOST/PATH or https://HOST/PATH";
                self.errors.invalid(format!("{at}.http.url"), &http.url.clone().into(), what);
            }
            let method = if http.method.is_empty() { "POST" } else { &http.method };
            if !["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].contains(&method) {
                let known = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];
                self.errors.unsupported(format!("{at}.http.method"), method, &known);
            }
            for (name, value) in &http.headers {
                if name.parse::<http::HeaderName>().is_err() || value.parse::<http::HeaderValue>().is_err() {
                    self.errors.invalid(
                        format!("{at}.http.headers[{name}]"),
                        &value.clone().into(),
                        "is no header of HTTP",
                    );
                }
            }
            Target::Http(http.clone())
        } else if let Some(job) = &spec.gpu_job {
            for (field, what) in [("cluster", "the JobCluster it runs on"), ("run", "the shell commands to run")] {
                if job.0.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                    self.errors.required(format!("{at}.gpuJob.{field}"), what);
                }
            }
            Target::GpuJob(job.clone())
        } else {
            let job = spec.job.clone().unwrap_or_default();
            if spec.job.is_some() && job.image.is_empty() {
                self.errors.required(format!("{at}.job.image"), "the image to run");
            }
            Target::Job(job)
        };
        Action::Task(Task { target, heartbeat })
    }

    fn choice(&mut self, at: &str, spec: &ChoiceSpec) -> Action {
        if spec.rules.is_empty() {
            self.errors.required(format!("{at}.rules"), "at least one rule");
        }
        let rules = spec.rules.iter().enumerate();
        let rules = rules.filter_map(|(index, rule)| self.rule(&format!("{at}.rules[{index}]"), rule)).collect();
        let default = (!spec.default.is_empty()).then(|| spec.default.clone());
        Action::Choice { rules, default }
    }

    fn rule(&mut self, at: &str, spec: &RuleSpec) -> Option<Rule> {
        if spec.next.is_empty() {
            self.errors.required(format!("{at}.next"), "where the rule leads");
        }
        let condition = match (spec.when.is_empty(), spec.check.is_empty()) {
            (false, true) => Condition::Expr(self.expr(&format!("{at}.when"), &spec.when)?),
            (true, false) => self.check(at, spec)?,
            (true, true) => {
                self.errors.required(at, "either when, or check with variable and value");
                return None;
            }
            (false, false) => {
                self.errors.forbidden(format!("{at}.check"), "the rule has a when already");
                return None;
            }
        };
        Some(Rule { condition, next: spec.next.clone() })
    }

    fn check(&mut self, at: &str, spec: &RuleSpec) -> Option<Condition> {
        let field = |name: &str| format!("{at}.{name}");
        if spec.variable.is_empty() {
            self.errors.required(field("variable"), "what is checked");
            return None;
        }
        let source = if spec.variable.starts_with('$') { spec.variable.clone() } else { field_path(&spec.variable) };
        let variable = self.path(&field("variable"), &source)?;
        let value = spec.value.clone().unwrap_or_default();
        match Check::new(&spec.check, &value) {
            Ok(check) => return Some(Condition::Check { variable, check }),
            Err(CheckError::Unknown(names)) => self.errors.unsupported(field("check"), &spec.check, &names),
            Err(CheckError::Value(why)) => self.errors.invalid(field("value"), &value, why),
        }
        None
    }

    fn parallel(&mut self, at: &str, spec: &ParallelSpec, nesting: usize) -> Action {
        if spec.branches.is_empty() {
            self.errors.required(format!("{at}.branches"), "at least one branch");
        }
        let branches = spec.branches.iter().enumerate();
        Action::Parallel(branches.map(|(i, b)| self.program(&format!("{at}.branches[{i}]"), b, nesting + 1)).collect())
    }

    fn map(&mut self, at: &str, spec: &MapSpec, nesting: usize) -> Action {
        let inner = ProgramSpec { start_at: spec.start_at.clone(), steps: spec.steps.clone() };
        let concurrency = self.count(&format!("{at}.maxConcurrency"), Some(spec.max_concurrency), 0, 10_000);
        Action::Map {
            items: self.path(&format!("{at}.itemsPath"), &spec.items_path),
            concurrency: concurrency.filter(|n| *n > 0).map_or(usize::MAX, |n| n as usize),
            body: self.program(at, &inner, nesting + 1),
        }
    }

    fn wait(&mut self, at: &str, spec: &WaitSpec) -> Action {
        let given = [
            spec.seconds.is_some(),
            !spec.until.is_empty(),
            !spec.seconds_path.is_empty(),
            !spec.until_path.is_empty(),
        ];
        if given.iter().filter(|is| **is).count() != 1 {
            self.errors.required(at, "exactly one of seconds, until, secondsPath, untilPath");
        }
        if !spec.until.is_empty() {
            let moment = spec.until.parse::<Timestamp>().map(|t| t.as_millisecond());
            return Action::Wait(WaitFor::Until(moment.unwrap_or_else(|_| {
                let why = "must be a moment such as 2030-01-31T12:00:00Z";
                self.errors.invalid(format!("{at}.until"), &spec.until.clone().into(), why);
                0
            })));
        }
        Action::Wait(if let Some(path) = self.path(&format!("{at}.secondsPath"), &spec.seconds_path) {
            WaitFor::SecondsAt(path)
        } else if let Some(path) = self.path(&format!("{at}.untilPath"), &spec.until_path) {
            WaitFor::UntilAt(path)
        } else {
            WaitFor::Millis(self.seconds(&format!("{at}.seconds"), spec.seconds).unwrap_or_default())
        })
    }

    fn retry(&mut self, at: &str, spec: &RetrySpec) -> Retry {
        let field = |name: &str| format!("{at}.{name}");
        self.errors_named(&field("errors"), &spec.errors);
        let rate = spec.backoff_rate.unwrap_or(2.0);
        if !(1.0..=100.0).contains(&rate) {
            self.errors.invalid(field("backoffRate"), &rate.into(), "must be between 1 and 100");
        }
        let jitter = match spec.jitter.as_str() {
            "" | "Half" => Jitter::Half,
            "Full" => Jitter::Full,
            "None" => Jitter::None,
            other => {
                self.errors.unsupported(field("jitter"), other, &["None", "Half", "Full"]);
                Jitter::None
            }
        };
        Retry {
            errors: spec.errors.clone(),
            attempts: self.count(&field("maxAttempts"), spec.max_attempts, 0, 1000).unwrap_or(3) as u32,
            interval: self.seconds(&field("intervalSeconds"), spec.interval_seconds).unwrap_or(1000),
            rate,
            max: self.seconds(&field("maxDelaySeconds"), spec.max_delay_seconds).unwrap_or(300_000),
            jitter,
        }
    }

    fn catch(&mut self, at: &str, spec: &CatchSpec) -> Catch {
        self.errors_named(&format!("{at}.errors"), &spec.errors);
        if spec.next.is_empty() {
            self.errors.required(format!("{at}.next"), "where to go on");
        }
        let result = self.place(&format!("{at}.resultPath"), &spec.result_path);
        Catch { errors: spec.errors.clone(), result, next: spec.next.clone() }
    }

    fn errors_named(&mut self, field: &str, names: &[String]) {
        if names.is_empty() || names.iter().any(String::is_empty) {
            self.errors.required(field, "names of errors, or \"*\" for all");
        }
    }

    fn expr(&mut self, field: &str, source: &str) -> Option<Expr> {
        let compiled = Expr::compile(source, &VARIABLES);
        compiled.map_err(|e| self.errors.invalid(field, &source.into(), &e.to_string())).ok()
    }

    fn template(&mut self, field: &str, value: &Value) -> Option<Template> {
        let compiled = Template::compile(field, value, &VARIABLES);
        compiled.map_err(|(field, text, e)| self.errors.invalid(field, &text.into(), &e.to_string())).ok()
    }

    fn path(&mut self, field: &str, source: &str) -> Option<Path> {
        if source.is_empty() {
            return None;
        }
        Path::compile(source).map_err(|e| self.errors.invalid(field, &source.into(), &e.to_string())).ok()
    }

    fn place(&mut self, field: &str, source: &str) -> Place {
        let everything = Place::At(Vec::new());
        if source.is_empty() {
            return everything;
        }
        Place::parse(source).unwrap_or_else(|e| {
            self.errors.invalid(field, &source.into(), &e.to_string());
            everything
        })
    }

    fn seconds(&mut self, field: &str, seconds: Option<f64>) -> Option<Millis> {
        let seconds = seconds?;
        if !(0.0..=MAX_SECONDS).contains(&seconds) {
            self.errors.invalid(field, &seconds.into(), "must be between 0 and a year of seconds");
        }
        Some((seconds * 1000.0) as Millis)
    }

    fn count(&mut self, field: &str, number: Option<i64>, min: i64, max: i64) -> Option<i64> {
        let number = number?;
        if !(min..=max).contains(&number) {
            self.errors.invalid(field, &number.into(), &format!("must be between {min} and {max}"));
        }
        Some(number)
    }
}

/// A field's name as a path.
fn field_path(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_alphanumeric() || "_-. ".contains(c));
    // What is no name goes to the compiler of paths as it is, which refuses it.
    if plain { format!("$['{}']", name.replace('.', "']['")) } else { name.to_owned() }
}
