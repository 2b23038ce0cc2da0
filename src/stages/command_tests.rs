use std::time::Instant;

use super::*;
use crate::stages::testing::Bench;

fn params(yaml: &str) -> CommandParams {
    serde_yaml::from_str(yaml).unwrap()
}

fn shell(script: &str) -> CommandParams {
    CommandParams {
        command: ["sh", "-c", script].map(str::to_string).into(),
        ..params("{command: [sh], outputs: [out.txt]}")
    }
}

fn text(bench: &Bench, outcome: &Outcome, name: &str) -> String {
    String::from_utf8(bench.store.read(&outcome.outputs[name]).unwrap()).unwrap()
}

fn error(bench: &Bench, params: &CommandParams) -> String {
    format!("{:#}", run(params, &bench.context(&|| false)).unwrap_err())
}

#[test]
fn a_program_reads_its_inputs_and_writes_its_outputs() {
    let mut bench = Bench::new();
    let mut put = |role: &str, blobs: &[(&str, &str)]| {
        let artifact = blobs.iter().map(|(name, text)| (name.to_string(), bench.store.put(text.as_bytes()).unwrap()));
        bench.inputs.insert(role.to_string(), artifact.collect());
    };
    put("inputs.one", &[("a.txt", "first ")]);
    put("inputs.all", &[("b.txt", "second "), ("c.txt", "third ")]);
    let mut params = shell(
        "cat {inputs.one} {inputs.all}/*.txt >{outputs.out.txt}; echo $X $HOME {threads} {seed} >>outputs/out.txt; \
         pwd >outputs/pwd.txt; echo '{\"n\": 3, \"deep\": {\"x\": 0.5, \"name\": \"no\"}}' >outputs/m.json",
    );
    params.inputs = [("one".into(), "s/a.txt".into()), ("all".into(), "s".into())].into();
    params.outputs = ["out.txt", "pwd.txt", "m.json"].map(str::to_string).into();
    params.env = [("X".into(), "<{inputs.one}>".into()), ("HOME".into(), "/home".into())].into();
    params.metrics = Some("m.json".into());
    let outcome = run(&params, &bench.context(&|| false)).unwrap();
    assert_eq!(text(&bench, &outcome, "out.txt"), "first second third <inputs/one/a.txt> /home 2 1\n");
    assert!(text(&bench, &outcome, "pwd.txt").ends_with("/work/scratch\n"));
    assert_eq!(outcome.metrics, [("n".to_string(), 3.0), ("deep.x".to_string(), 0.5)].into());
    assert!(!bench.folder.path().join("work/scratch").exists());
}

#[test]
fn only_declared_environment_variables_are_passed() {
    let bench = Bench::new();
    let mut params = shell("env | cut -d= -f1 | sort | tr '\\n' ' ' >outputs/out.txt");
    params.env = [("DECLARED".into(), "1".into())].into();
    let outcome = run(&params, &bench.context(&|| false)).unwrap();
    let text = text(&bench, &outcome, "out.txt");
    let of_the_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let names: Vec<&str> = text.split_whitespace().filter(|name| !of_the_shell.contains(name)).collect();
    let known = ["CUDA_VISIBLE_DEVICES", "DECLARED", "HOME", "OMP_NUM_THREADS", "PATH", "TMPDIR"];
    assert!(names.iter().all(|name| known.contains(name)) && names.contains(&"DECLARED"), "{text}");
}

#[test]
fn failures_are_reported_with_their_cause() {
    let bench = Bench::new();
    for (script, expected) in [
        ("exit 3", "the program `sh` ended with exit code 3"),
        ("true", "did not create {outputs.out.txt}"),
        ("mkdir outputs/out.txt", "{outputs.out.txt} is not a regular file"),
        ("ln -s /etc/passwd outputs/out.txt", "{outputs.out.txt} is not a regular file"),
        ("kill -9 $$", "killed by signal 9"),
    ] {
        let error = error(&bench, &shell(script));
        assert!(error.contains(expected), "{script}: {error}");
    }
    let none = params("{command: [no-such-program], outputs: [o]}");
    assert!(error(&bench, &none).starts_with("starting `no-such-program`"));
    let metrics = CommandParams { metrics: Some("out.txt".into()), ..shell("echo 1 >outputs/out.txt") };
    assert!(error(&bench, &metrics).contains("not a JSON object"));
    let file = params("{command: [sh], outputs: [o], files: [Cargo.toml]}");
    assert!(error(&bench, &file).contains("Cargo.toml was changed after the run was planned"));
}

#[test]
fn a_program_that_modifies_its_input_is_detected() {
    let mut bench = Bench::new();
    let digest = bench.store.put(b"content").unwrap();
    bench.inputs.insert("inputs.a".into(), [("blob".to_string(), digest)].into());
    // The input is read-only, but root, or a program that changes permissions, can write to it.
    let mut params = shell("chmod u+w $(readlink -f inputs/a/blob); echo x >inputs/a/blob; touch outputs/out.txt");
    params.inputs = [("a".into(), "s/blob".into())].into();
    assert!(error(&bench, &params).contains("changed one of its inputs"));
}

#[test]
fn an_interruption_kills_the_program_and_its_children() {
    let bench = Bench::new();
    let start = Instant::now();
    let interrupted = || start.elapsed() > Duration::from_millis(200);
    let error =
        run(&shell("echo $$ >pid; trap '' TERM; sleep 100 & sleep 100"), &bench.context(&interrupted)).unwrap_err();
    assert!(error.is::<Interrupted>());
    let leader = std::fs::read_to_string(bench.folder.path().join("work/scratch/pid")).unwrap();
    let group = Pid::from_raw(leader.trim().parse().unwrap()).unwrap();
    let gone = || rustix::process::test_kill_process_group(group).is_err();
    assert!((0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        gone()
    }));
}
