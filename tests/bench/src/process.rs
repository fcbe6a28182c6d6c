//! The measured processes: started, pinned to cores, and asked for their CPU time.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Error;
use crate::stats::Nanos;

/// A child process, which ends with the measurement.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` and discards its output.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        settings: &[(String, String)],
    ) -> Result<Self, Error> {
        let mut command = Command::new(program);
        command.args(arguments).envs(settings.iter().cloned());
        let child = command.stdout(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pins a process, with all its threads, to these cores (`0`, `0,1`).
pub(crate) fn pin(process: u32, cores: &str) -> Result<(), Error> {
    let mut taskset = Command::new("taskset");
    taskset.args(["-a", "-c", "-p", cores, &process.to_string()]);
    let status = taskset.stdout(Stdio::null()).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("taskset cannot put process {process} on core {cores}").into())
    }
}

/// The CPU time of all threads of a process so far.
pub(crate) fn cpu(process: u32) -> Result<Nanos, Error> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let on_cpu = schedstat.split_whitespace().next().unwrap_or_default();
        total += on_cpu.parse::<Nanos>()?;
    }
    Ok(total)
}

/// Resident memory, in kB.
pub(crate) fn resident_kb(process: u32) -> Result<u64, Error> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let digits = line.and_then(|line| line.split_whitespace().next());
    Ok(digits.unwrap_or_default().parse()?)
}
