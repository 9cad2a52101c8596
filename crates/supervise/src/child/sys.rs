//! The crate's only `unsafe`: the steps between fork and exec, and system calls no safe wrapper offers.

use std::backtrace::Backtrace;
use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::{Identity, Image, Launch};
use crate::fleet::Exit;

/// The exit code of a child whose program could not be executed, as shells have it.
const CANNOT_EXECUTE: i32 = 127;

const LISTEN_PID: &[u8] = b"LISTEN_PID=";

/// The longest process id.
const PID_DIGITS: usize = 10;

/// Everything a child needs, in place before the fork.
///
/// The pointers lead into the vectors beside them, whose contents never move because they are never changed.
pub(crate) struct Prepared<'a> {
    launch: &'a Launch<'a>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    _environment_text: Vec<CString>,
    /// `LISTEN_PID=` with room for the digits only the child knows.
    listen_pid: Box<[u8; LISTEN_PID.len() + PID_DIGITS + 1]>,
    /// Becomes descriptor `index`; overwritten in the child with copies out of the way.
    descriptors: Vec<RawFd>,
    /// The pinned executable, likewise.
    image: RawFd,
    groups: Vec<libc::gid_t>,
    complaint: Vec<u8>,
    parent: libc::pid_t,
}

impl<'a> Prepared<'a> {
    /// Lays out `environment` (without `LISTEN_PID`) and the descriptors that become 0, 1, 2 and so on.
    pub(crate) fn new(launch: &'a Launch<'a>, descriptors: &[BorrowedFd<'_>], environment: Vec<CString>) -> Self {
        let mut listen_pid = Box::new([0; LISTEN_PID.len() + PID_DIGITS + 1]);
        listen_pid[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
        let mut pointers: Vec<_> = environment.iter().map(|entry| entry.as_ptr()).collect();
        pointers.push(ptr::null());
        pointers.push(ptr::null());
        let executable = launch.executable;
        let arguments = executable.arguments.iter().map(|argument| argument.as_ptr());
        let mut complaint = b"cannot execute ".to_vec();
        complaint.extend(executable.arguments[0].as_bytes());
        complaint.extend(b"\n");
        Self {
            launch,
            arguments: arguments.chain([ptr::null()]).collect(),
            environment: pointers,
            _environment_text: environment,
            listen_pid,
            descriptors: descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
            image: match &executable.image {
                Image::Pinned(descriptor) => descriptor.as_raw_fd(),
                Image::Path(_) => -1,
            },
            groups: launch.identity.map(|identity| identity.groups.clone()).unwrap_or_default(),
            complaint,
            parent: nix::unistd::getpid().as_raw(),
        }
    }

    /// The child's half. Only system calls that are safe after a fork, no allocation, no return.
    fn become_program(mut self) -> ! {
        self.write_listen_pid();
        let done = self
            .leave_signals_and_group()
            .and_then(|()| self.place_descriptors())
            .and_then(|()| self.change_identity())
            .and_then(|()| self.tie_to_parent());
        if done.is_ok() {
            self.execute();
        }
        self.complain();
        exit_at_once(CANNOT_EXECUTE)
    }

    fn write_listen_pid(&mut self) {
        let mut digits = [0; PID_DIGITS];
        let mut rest = nix::unistd::getpid().as_raw();
        let mut first = PID_DIGITS;
        while rest > 0 {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let length = PID_DIGITS - first;
        self.listen_pid[LISTEN_PID.len()..LISTEN_PID.len() + length].copy_from_slice(&digits[first..]);
        let entry = self.environment.len() - 2;
        self.environment[entry] = self.listen_pid.as_ptr().cast();
    }

    /// Ctrl-C in a terminal goes to the supervisor's group alone, and no handler or ignored signal of the supervisor stays.
    #[allow(unsafe_code)]
    fn leave_signals_and_group(&self) -> nix::Result<()> {
        // SAFETY: both calls are async-signal-safe and take plain numbers.
        unsafe {
            libc::setpgid(0, 0);
            for signal in 1..=64 {
                // Fails for the two signals that cannot be handled, and for the C library's own.
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        Ok(())
    }

    /// First copies everything above the targets, so that no target overwrites a source.
    #[allow(unsafe_code)]
    fn place_descriptors(&mut self) -> nix::Result<()> {
        let above = self.descriptors.len() as RawFd;
        let out_of_the_way = |descriptor: RawFd| {
            // SAFETY: the descriptor is a number the kernel checks.
            Errno::result(unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, above) })
        };
        if self.image >= 0 {
            self.image = out_of_the_way(self.image)?;
        }
        for descriptor in &mut self.descriptors {
            *descriptor = out_of_the_way(*descriptor)?;
        }
        for (target, &source) in (0..).zip(&self.descriptors) {
            // SAFETY: both are numbers; the target becomes a copy that stays open on exec.
            Errno::result(unsafe { libc::dup2(source, target) })?;
        }
        // What the supervisor's own parent left open is nobody's business here. Old kernels cannot do it; then it stays.
        // SAFETY: only sets flags of descriptors of this process, which has nothing above but copies closed on exec.
        unsafe { libc::syscall(libc::SYS_close_range, above, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        Ok(())
    }

    fn change_identity(&self) -> nix::Result<()> {
        match self.launch.identity {
            Some(identity) => become_user(identity, &self.groups),
            None => Ok(()),
        }
    }

    /// Has the kernel send SIGTERM when the supervisor dies; after the change of user, which would undo it.
    #[allow(unsafe_code)]
    fn tie_to_parent(&self) -> nix::Result<()> {
        // SAFETY: plain numbers.
        Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) })?;
        // SAFETY: no arguments.
        if unsafe { libc::getppid() } != self.parent {
            // It died before the line above.
            exit_at_once(0);
        }
        Ok(())
    }

    #[allow(unsafe_code)]
    fn execute(&self) {
        let (arguments, environment) = (self.arguments.as_ptr(), self.environment.as_ptr());
        // SAFETY: both arrays end with a null pointer and point to strings with a final NUL that live in `self` or in the
        // `Executable` it borrows; the empty signal set is initialised by sigemptyset. Returns only on failure.
        unsafe {
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
            match &self.launch.executable.image {
                Image::Pinned(_) => {
                    libc::execveat(self.image, c"".as_ptr(), arguments.cast(), environment.cast(), libc::AT_EMPTY_PATH);
                }
                Image::Path(path) => {
                    libc::execve(path.as_ptr(), arguments, environment);
                }
            }
        }
    }

    #[allow(unsafe_code)]
    fn complain(&self) {
        // SAFETY: the pointer and the length describe `complaint`; descriptor 2 is the log or, before it is placed, the supervisor's.
        unsafe { libc::write(2, self.complaint.as_ptr().cast(), self.complaint.len()) };
    }
}

/// Has `command` run as `identity`. Needs root.
#[allow(unsafe_code)]
pub(crate) fn change_identity_of(command: &mut Command, identity: Identity) {
    let groups = identity.groups.clone();
    // SAFETY: the closure runs between fork and exec and makes nothing but system calls; its memory was filled before.
    unsafe { command.pre_exec(move || Ok(become_user(&identity, &groups)?)) };
}

/// Gives up this process's user for good. Allocates nothing.
#[allow(unsafe_code)]
fn become_user(identity: &Identity, groups: &[libc::gid_t]) -> nix::Result<()> {
    let (uid, gid) = (identity.uid, identity.gid);
    // SAFETY: `groups` outlives the call; the rest are numbers. Groups go first, because changing them needs the
    // privilege that changing the user gives up.
    unsafe {
        Errno::result(libc::setgroups(groups.len(), groups.as_ptr()))?;
        Errno::result(libc::setresgid(gid, gid, gid))?;
        Errno::result(libc::setresuid(uid, uid, uid))?;
    }
    Ok(())
}

/// Forks this process in two that both go on from here; gives the child's id to the parent and nothing to the child.
///
/// The calling process must have one thread only: nobody would ever release the locks that another one holds.
#[allow(unsafe_code)]
pub(crate) fn fork_in_two() -> io::Result<Option<i32>> {
    // SAFETY: there is no other thread, so the child's memory is whole and it may do whatever the parent may.
    let pid = Errno::result(unsafe { libc::fork() })?;
    Ok((pid != 0).then_some(pid))
}

/// Forks, executes in the child and returns the child's process id.
///
/// All signals are blocked meanwhile, so that none runs the supervisor's handlers in the child. A program that cannot be
/// executed shows as an exit with code 127 and a line in its output, because waiting for it would block the loop.
#[allow(unsafe_code)]
pub(crate) fn fork_and_exec(prepared: Prepared<'_>) -> io::Result<i32> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: the child runs `become_program` only, which allocates nothing and never returns.
    let forked = Errno::result(unsafe { libc::fork() });
    if forked == Ok(0) {
        prepared.become_program();
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(forked?)
}

/// Becomes another program, to which the descriptors in `kept` stay open. Returns only if that fails, as if nothing had been
/// tried.
///
/// The new program starts with all signals blocked, so that none is lost between this program's handlers and its own;
/// `when_blocked` runs as soon as they are.
#[allow(unsafe_code)]
pub(crate) fn replace_program(
    program: &CString,
    arguments: &[CString],
    environment: &[CString],
    kept: &[RawFd],
    when_blocked: impl FnOnce(),
) -> io::Error {
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    let set_flags = |flags: libc::c_int| {
        for &descriptor in kept {
            // SAFETY: a number the kernel checks.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, flags) };
        }
    };
    let mut before = SigSet::empty();
    if let Err(errno) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before)) {
        return errno.into();
    }
    when_blocked();
    set_flags(0);
    // SAFETY: both arrays end with a null pointer and point to strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    let error = io::Error::last_os_error();
    set_flags(libc::FD_CLOEXEC);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    error
}

/// Lets signals come again that [`replace_program`] has held back.
pub(crate) fn unblock_signals() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Forks a child that runs `body` with nothing but stdin, stdout, stderr and `keep` open, and never returns from it.
///
/// The calling process must have one thread only: `body` may allocate and start threads of its own.
#[allow(unsafe_code)]
pub(crate) fn fork_function(keep: OwnedFd, body: impl FnOnce(OwnedFd)) -> io::Result<i32> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: no other thread exists that could hold a lock the child would need; the child ends in `_exit`.
    let forked = Errno::result(unsafe { libc::fork() });
    if forked == Ok(0) {
        let code = catch_unwind(AssertUnwindSafe(|| {
            let keep = keep_only(keep);
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            body(keep);
        }));
        exit_at_once(if code.is_ok() { 0 } else { 70 });
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(forked?)
}

/// Leaves a forked child with the standard streams and one descriptor, its own process group, and deaf to what is meant for others.
#[allow(unsafe_code)]
fn keep_only(keep: OwnedFd) -> OwnedFd {
    const KEPT: RawFd = 3;
    // SAFETY: numbers only. Every descriptor above 3 is closed although objects of the parent's memory image still name it;
    // those are never dropped, because the child ends in `_exit`.
    unsafe {
        libc::setpgid(0, 0);
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE, libc::SIGTTOU] {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::dup3(keep.as_raw_fd(), KEPT, libc::O_CLOEXEC);
        std::mem::forget(keep);
        libc::syscall(libc::SYS_close_range, KEPT + 1, u32::MAX, 0);
        OwnedFd::from_raw_fd(KEPT)
    }
}

/// Takes ownership of a descriptor this process was started with, and closes it on exec from now on.
#[allow(unsafe_code)]
pub(crate) fn own_inherited(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a number the kernel checks.
    Errno::result(unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, as the call above has shown, and whoever started this process promised it to the caller,
    // who claims the inheritance only once.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Attaches a classic BPF program that chooses among the members of `socket`'s reuseport group.
#[allow(unsafe_code)]
pub(crate) fn attach_reuseport_program(socket: BorrowedFd<'_>, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let description = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `description` points to `len` instructions that outlive the call; the kernel copies and checks them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const description).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// How many connections wait to be accepted from a listening TCP socket.
#[allow(unsafe_code)]
pub(crate) fn accept_queue_length(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: an all-zero structure of plain numbers is valid.
    let mut information: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `information` is valid for writes of `length` bytes, and the kernel writes no more.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut information).cast(),
            &mut length,
        )
    };
    Errno::result(result)?;
    // Of a listening socket this field is its queue (`tcp_get_info` in the kernel's net/ipv4/tcp.c).
    Ok(information.tcpi_unacked)
}

/// Ends the process without destructors or handlers: the only way that cannot hang.
#[allow(unsafe_code)]
pub(crate) fn exit_at_once(code: i32) -> ! {
    // SAFETY: `_exit` may be called from any thread at any time.
    unsafe { libc::_exit(code) }
}

/// Clock ticks per second and bytes per page, the units of `/proc`.
#[allow(unsafe_code)]
pub(crate) fn proc_units() -> (f64, u64) {
    // SAFETY: plain numbers in and out.
    let (ticks, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
    (ticks as f64, page as u64)
}

/// Receives what there is without waiting, and the descriptors that may come with it, at most two, closed on exec.
#[allow(unsafe_code)]
pub(crate) fn receive_with_descriptors(
    socket: BorrowedFd<'_>,
    message: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 2]);
    let mut parts = [IoSliceMut::new(message)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let descriptors = received.cmsgs()?.flat_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => descriptors,
        _ => Vec::new(),
    });
    // SAFETY: the kernel has just opened the descriptors for this message and nobody else knows them.
    let descriptors = descriptors.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }).collect();
    Ok((received.bytes, descriptors))
}

/// Takes one ended child, whoever started it, without waiting: `before` runs while its id still cannot be used anew.
#[allow(unsafe_code)]
pub(crate) fn reap(before: impl FnOnce(i32)) -> Option<(i32, Exit)> {
    let flags = libc::WEXITED | libc::WNOHANG;
    // SAFETY: an all-zero siginfo is valid; the kernel fills it in, and leaves the id at zero when nobody has ended.
    let mut information: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `information` is valid for writes.
    Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, &mut information, flags | libc::WNOWAIT) }).ok()?;
    // SAFETY: waitid fills in the members of a SIGCHLD.
    let (pid, status) = unsafe { (information.si_pid(), information.si_status()) };
    if pid == 0 {
        return None;
    }
    before(pid);
    // SAFETY: a null pointer asks for no information.
    unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, ptr::null_mut(), flags) };
    let exit = if information.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) };
    Some((pid, exit))
}

/// How long the backtrace of a process that is told to abort may take: a little less than it gets before it is killed.
const ABORT_PATIENCE: libc::timeval = libc::timeval { tv_sec: 1, tv_usec: 600_000 };

/// Has SIGABRT print a backtrace of the main thread to stderr before it ends the process.
#[allow(unsafe_code)]
pub(crate) fn backtrace_on_abort() -> io::Result<()> {
    // On the stack of the thread itself: the alternative one is too small for reading debug information.
    let action = SigAction::new(SigHandler::Handler(on_abort), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: `on_abort` is not async-signal-safe where it makes the backtrace, and allowed not to be: the process ends either
    // way, by the timer at the latest, so nothing that it may find locked or half changed is used by anybody afterwards.
    unsafe { sigaction(Signal::SIGABRT, &action) }?;
    Ok(())
}

#[allow(unsafe_code)]
extern "C" fn on_abort(_: libc::c_int) {
    // SAFETY: plain numbers. The first thread's id is the process's.
    unsafe {
        if libc::gettid() != libc::getpid() {
            // The main thread is the one that is stuck. This one goes on until that one has ended the process.
            libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::getpid(), libc::SIGABRT);
            return;
        }
    }
    abort_after(ABORT_PATIENCE);
    let text = format!("told to abort; the main thread is here:\n{}\n", Backtrace::force_capture());
    let mut rest = text.as_bytes();
    // SAFETY: the pointer and the length describe `rest`.
    while let count @ 1.. = unsafe { libc::write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len()) } {
        rest = &rest[count as usize..];
    }
    die_by_abort(libc::SIGABRT);
}

/// The backtrace may meet a lock that the interrupted code holds, and stderr may be full: then the timer ends the process.
#[allow(unsafe_code)]
fn abort_after(patience: libc::timeval) {
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: never, it_value: patience };
    // SAFETY: `die_by_abort` makes system calls that are async-signal-safe, and nothing else; the set is initialised by
    // sigemptyset, and `timer` outlives its call.
    unsafe {
        libc::signal(libc::SIGALRM, die_by_abort as extern "C" fn(libc::c_int) as libc::sighandler_t);
        let mut alarm = std::mem::zeroed();
        libc::sigemptyset(&mut alarm);
        libc::sigaddset(&mut alarm, libc::SIGALRM);
        libc::sigprocmask(libc::SIG_UNBLOCK, &alarm, ptr::null_mut());
        libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut());
    }
}

#[allow(unsafe_code)]
extern "C" fn die_by_abort(_: libc::c_int) {
    // SAFETY: plain numbers and a set that sigemptyset initialises. All calls are async-signal-safe.
    unsafe {
        libc::signal(libc::SIGABRT, libc::SIG_DFL);
        let mut abort = std::mem::zeroed();
        libc::sigemptyset(&mut abort);
        libc::sigaddset(&mut abort, libc::SIGABRT);
        libc::sigprocmask(libc::SIG_UNBLOCK, &abort, ptr::null_mut());
        libc::raise(libc::SIGABRT);
    }
    // Only an ignored or blocked signal gets here, and it is neither.
    exit_at_once(libc::SIGABRT + 128)
}
