//! End-to-end tests of `command` stages: a user's program among built-in stages.

mod common;

use std::path::Path;

use common::{Pipeline, is_alive, wait_until};
use serde_json::json;

const COUNT: &str = "{kind: command, command: [sh, count.sh, '{inputs.images}', '{outputs.count.json}'], \
    inputs: {images: pairs/test_lr.safetensors}, outputs: [count.json], files: [count.sh], metrics: count.json}";

#[test]
fn a_program_can_run_as_a_stage() {
    let folder = Pipeline::small().stage("count", COUNT).folder();
    folder.write("count.sh", "echo counting; printf '{\"bytes\": %d}' $(wc -c <$1) >$2\n");
    let first = folder.run(&["--json"]);
    assert_eq!(first.finished()["stages"]["count"], "ran", "{first}");
    let output = std::fs::read_to_string(folder.runs().join("p/latest/count/count.json")).unwrap();
    assert!(output.starts_with("{\"bytes\": "), "{output}");
    assert_eq!(folder.srpipe(&["logs", "count"]).stdout, "counting\n");
    let status = folder.srpipe(&["status", "p.yaml"]);
    assert!(status.stdout.contains("bytes "), "{status}");

    let again = folder.run(&["--json"]);
    assert_eq!(again.finished()["stages"]["count"], "cached", "{again}");
    folder.write("count.sh", "printf '{\"bytes\": 1}' >$2\n");
    let changed = folder.run(&["--json"]);
    assert_eq!(changed.finished()["stages"]["count"], "ran", "{changed}");
    let env = folder.run(&["--json", "--set", "stages.count.env.A=b"]);
    assert_eq!(env.finished()["stages"]["count"], "ran", "{env}");
    // Outputs of the input that the stage does not read are not part of its key.
    let method = folder.run(&["--json", "--set", "stages.images.train=9"]);
    assert_eq!(method.finished()["stages"]["count"], "cached", "{method}");
}

#[test]
fn failures_are_reported_with_the_exit_code_and_the_log() {
    let bad = "{kind: command, command: [sh, -c, 'echo what happened; exit 3'], outputs: [o]}";
    let none = "{kind: command, command: [no-such-program], outputs: [o]}";
    let folder = Pipeline::new().stage("bad", bad).stage("none", none).folder();
    let output = folder.run(&["--keep-going"]);
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.stderr.contains("the program `sh` ended with exit code 3"), "{output}");
    assert!(output.stderr.contains("| what happened"), "{output}");
    assert!(output.stderr.contains("`no-such-program` ended with exit code 127: it is not installed"), "{output}");
    assert!(output.stderr.contains("starting no-such-program: No such file"), "{output}");
    let folder = Pipeline::new().stage("bad", &bad.replace("}", ", files: [none.sh]}")).folder();
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(2), "{output}");
    assert!(output.stderr.contains("stages.bad.files: none.sh does not exist"), "{output}");
}

#[test]
fn start_errors_of_a_program_are_explained() {
    let stage = |command: &str, more: &str| format!("{{kind: command, command: [{command}], outputs: [o]{more}}}");
    let folder = Pipeline::new()
        .stage("below", &stage("bin/tool", ""))
        .stage("nowhere", &stage("bin/none", ""))
        .stage("absolute", &stage("/no/such/program", ""))
        .stage("plain", &stage("./script.sh", ", files: [script.sh]"))
        .stage("interpreter", &stage("./other.sh", ", files: [other.sh]"))
        .stage("folder", &stage("./inputs", ""))
        .stage("within", &stage("sh, -c, no-such-program", ""))
        .folder();
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    for (name, content, mode) in [
        ("bin/tool", "#!/bin/sh\n", 0o755),
        ("script.sh", "#!/bin/sh\n", 0o644),
        ("other.sh", "#!/no/such/interpreter\n", 0o755),
    ] {
        folder.write(name, content);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(folder.path().join(name), mode).unwrap();
    }
    let output = folder.run(&[]);
    assert_eq!(output.code, Some(1), "{output}");
    for expected in [
        &format!(
            "exit code 127: there is no such file in the stage's own working folder, where the program starts. Specify the full path, {}",
            folder.path().join("bin/tool").display()
        ),
        "`bin/none` ended with exit code 127: there is no such file. The program starts in a working folder of its own",
        "`/no/such/program` ended with exit code 127: there is no such file",
        "`./script.sh` ended with exit code 126: it is not executable: run `chmod +x ./script.sh`",
        "`./other.sh` ended with exit code 127: the program, the interpreter in its first line, or a program that it starts",
        "`./inputs` ended with exit code 12",
        "`sh` ended with exit code 127: the program, the interpreter in its first line, or a program that it starts was not found",
    ] {
        assert!(output.stderr.contains(expected), "{expected}\n{output}");
    }
}

#[test]
fn metrics_accept_what_pythons_json_writes() {
    let write = |text: &str| {
        format!("{{kind: command, command: [sh, -c, \"printf '{text}' >outputs/m\"], outputs: [m], metrics: m}}")
    };
    let folder = Pipeline::new()
        .stage("infinite", &write("{\\\\042psnr\\\\042: Infinity}"))
        .stage("nan", &write("{\\\\042a\\\\042: {\\n\\\\042loss\\\\042: NaN}}"))
        .folder();
    let output = folder.run(&["--json"]);
    assert_eq!(output.finished()["stages"], json!({"infinite": "ran", "nan": "failed"}), "{output}");
    assert!(output.stdout.contains("the metric `a.loss` (line 2) is NaN"), "{output}");
    let status = folder.srpipe(&["status", "p.yaml"]);
    assert!(status.stdout.contains("psnr inf"), "{status}");
}

#[test]
fn a_command_can_produce_the_input_of_another_kind() {
    let copy = "{kind: command, command: [sh, -c, 'cp {inputs.of}/* outputs/'], inputs: {of: images}, \
        outputs: [train_hr.safetensors, validation_hr.safetensors, test_hr.safetensors]}";
    let folder = Pipeline::small().stage("copy", copy).stage("small", "{kind: degrade, input: copy}").folder();
    let output = folder.run(&["--json"]);
    assert_eq!(output.code, Some(0), "{output}");
    // The images are the same, so the key is the same too.
    assert_eq!(output.finished()["stages"]["pairs"], "ran", "{output}");
    assert_eq!(output.finished()["stages"]["small"], "cached", "{output}");
}

#[test]
fn no_program_outlives_its_run() {
    let linger =
        "{kind: command, command: [sh, -c, 'trap \"\" TERM; echo $$ >'$0'; sleep 1000 & sleep 1000'], outputs: [o]}";
    for signals in [&["INT"][..], &["KILL"], &["INT", "INT"]] {
        let folder = Pipeline::new().folder();
        let pid_file = folder.path().join("pid");
        let linger = linger.replace("'$0'", pid_file.to_str().unwrap());
        folder.write("p.yaml", format!("name: p\nstages:\n  linger: {linger}\n"));
        let run = folder.start(&["run", "p.yaml", "--json"]);
        let read = || std::fs::read_to_string(&pid_file).unwrap_or_default().trim().parse::<u32>().ok();
        wait_until("the program runs", || read().is_some());
        let program = read().unwrap();
        let group = || -> Vec<u32> {
            let text = std::process::Command::new("pgrep").args(["-g", &program.to_string()]).output().unwrap().stdout;
            String::from_utf8(text).unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
        };
        assert!(group().len() >= 2);
        for signal in signals {
            run.signal(signal);
        }
        let output = run.wait();
        assert_eq!(output.code, (signals != ["KILL"]).then_some(130), "{output}");
        wait_until("all its processes are gone", || !group().into_iter().any(is_alive));
    }
}

/// If the driver's own list is not visible, GPUs are counted with `nvidia-smi`.
#[test]
fn gpus_are_counted_and_assigned() {
    if Path::new("/proc/driver/nvidia/gpus").exists() {
        return;
    }
    let stage = "{kind: command, command: [sh, -c, 'sleep 1; echo \"$CUDA_VISIBLE_DEVICES\" >outputs/o'], outputs: [o], \
        resources: {gpus: 1}";
    let stages = ["a", "b"].map(|name| format!("{stage}, env: {{NAME: {name}}}}}"));
    let folder = Pipeline::new().stage("a", &stages[0]).stage("b", &stages[1]).folder();
    folder
        .write("nvidia-smi", "#!/bin/sh\n[ \"$1\" = -L ] && printf 'GPU 0: One (UUID: x)\\nGPU 1: Two (UUID: y)\\n'\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path().join("nvidia-smi"), executable).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let run = |args: &[&str]| {
        let mut command = folder.command(&[&["run", "p.yaml"], args].concat());
        command.env("PATH", &path).env_remove("CUDA_VISIBLE_DEVICES").output().unwrap()
    };
    let refused = run(&["--set", "stages.a.resources.gpus=3"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && text.contains("`resources.gpus` of 3; this machine has 2"), "{text}");
    assert!(run(&[]).status.success());
    let mut assigned =
        ["a", "b"].map(|stage| std::fs::read_to_string(folder.runs().join("p/latest").join(stage).join("o")).unwrap());
    assigned.sort();
    assert_eq!(assigned, ["0\n", "1\n"]);
}

#[test]
fn resources_are_assigned_and_limits_are_enforced() {
    let stage = "{kind: command, command: [sh, -c, 'echo {threads} $OMP_NUM_THREADS \"<$CUDA_VISIBLE_DEVICES>\" >outputs/o'], \
        outputs: [o], resources: {cpus: 1}}";
    let folder = Pipeline::new().stage("ask", stage).folder();
    assert_eq!(folder.run(&[]).code, Some(0));
    assert_eq!(std::fs::read_to_string(folder.runs().join("p/latest/ask/o")).unwrap(), "1 1 <>\n");
    // Resources are not part of the key.
    let more = folder.run(&["--json", "--set", "stages.ask.resources.time=1 h"]);
    assert_eq!(more.finished()["stages"]["ask"], "cached", "{more}");

    let slow = "{kind: command, command: [sleep, 1000], outputs: [o], resources: {time: 0.3 s}, retry: {time: 1}}";
    let large = "{kind: command, command: [python3, -c, 'x = bytearray(300_000_000); import time; time.sleep(1000)'], \
        outputs: [o], resources: {memory: 150 MB}}";
    let folder = Pipeline::new().stage("slow", slow).stage("large", large).folder();
    let output = folder.run(&["--json", "--keep-going"]);
    assert_eq!(output.finished()["stages"], json!({"slow": "failed", "large": "failed"}), "{output}");
    let cause = |stage: &str| {
        let events = output.events();
        let failed = events.iter().find(|event| event["stage"] == stage && event["state"] == "failed").unwrap();
        failed["cause"].clone()
    };
    assert_eq!([cause("slow"), cause("large")], ["time", "out_of_memory"]);
    assert!(output.stdout.contains("retrying (1 of 1)"), "{output}");

    let refused = folder.run(&["--set", "stages.slow.resources.cpus=4000"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("stage slow requests `resources.cpus` of 4000; this machine has"), "{refused}");
}

#[test]
fn stages_can_be_forced_and_selected() {
    let folder = Pipeline::small().folder();
    let only = folder.run(&["--json", "--only", "pairs"]);
    assert_eq!(only.finished()["stages"], json!({"images": "ran", "pairs": "ran"}), "{only}");
    // The plan takes `--force` into account: dependents wait, because they may turn out to be cached.
    for command in [&["plan", "p.yaml"][..], &["run", "p.yaml", "--dry-run"]] {
        let args = [command, &["--only", "pairs", "--force", "images", "--json"]].concat();
        let plan: serde_json::Value = serde_json::from_str(&folder.srpipe(&args).stdout).unwrap();
        let state_and_reason = |stage: usize| (&plan["stages"][stage]["state"], &plan["stages"][stage]["reason"]);
        assert_eq!(state_and_reason(0), (&json!("ready"), &json!("forced")), "{plan}");
        assert_eq!(state_and_reason(1), (&json!("waiting"), &json!("waits")), "{plan}");
    }
    let force = folder.run(&["--json", "--force", "images"]);
    assert_eq!(force.finished()["stages"], json!({"images": "ran", "pairs": "cached", "others": "ran"}), "{force}");
    let all = folder.run(&["--json", "--force", "pairs"]);
    assert_eq!(all.finished()["stages"], json!({"images": "cached", "pairs": "ran", "others": "cached"}), "{all}");
    let none = folder.run(&["--only", "pears"]);
    assert_eq!((none.code, none.stderr.contains("the stages are images, pairs, others")), (Some(2), true), "{none}");
}

#[test]
fn a_program_is_mapped_over_a_sweep() {
    let with_both = "{kind: command, command: [sh, -c, 'cat {inputs.count} {inputs.images} | wc -c >outputs/o'], \
        inputs: {count: count/count.json, images: pairs/test_lr.safetensors}, outputs: [o]}";
    let folder = Pipeline::new()
        .stage("images", "{kind: fetch, dataset: synthetic, train: 4, validation: 2, test: 2}")
        .stage("pairs", "{kind: degrade, input: images, matrix: {scale: [2, 4]}}")
        .stage("count", COUNT)
        .stage("both", with_both)
        .folder();
    folder.write("count.sh", "printf '{\"bytes\": %d}' $(wc -c <$1) >$2\n");
    let one = folder.run(&["--json", "--only", "count[scale=4]"]);
    let expected = json!({"images": "ran", "pairs[scale=4]": "ran", "count[scale=4]": "ran"});
    assert_eq!(one.finished()["stages"], expected, "{one}");
    let all = folder.run(&["--json"]);
    let expected = json!({
        "images": "cached", "pairs[scale=2]": "ran", "pairs[scale=4]": "cached", "count[scale=2]": "ran",
        "count[scale=4]": "cached", "both[scale=2]": "ran", "both[scale=4]": "ran",
    });
    assert_eq!(all.finished()["stages"], expected, "{all}");
    // Each instance read the images of its own scale and their count.
    let read = |name: &str| std::fs::read_to_string(folder.runs().join("p/latest").join(name)).unwrap();
    let bytes = |scale: usize| -> usize {
        let count: serde_json::Value =
            serde_json::from_str(&read(&format!("count[scale={scale}]/count.json"))).unwrap();
        count["bytes"].as_u64().unwrap() as usize
    };
    assert!(bytes(2) > bytes(4));
    for scale in [2, 4] {
        let count = read(&format!("count[scale={scale}]/count.json"));
        assert_eq!(read(&format!("both[scale={scale}]/o")).trim(), (count.len() + bytes(scale)).to_string());
    }
    // The name in the file selects all instances; a full name selects one.
    let forced = folder.run(&["--json", "--force", "count"]).finished()["stages"].clone();
    assert_eq!([&forced["count[scale=2]"], &forced["count[scale=4]"]], ["ran", "ran"], "{forced}");
    let forced = folder.run(&["--json", "--force", "count[scale=2]"]).finished()["stages"].clone();
    assert_eq!([&forced["count[scale=2]"], &forced["count[scale=4]"]], ["ran", "cached"], "{forced}");
    folder.write("count.sh", "printf '{\"bytes\": 1}' >$2\n");
    let why = folder.srpipe(&["why", "p.yaml", "count[scale=4]"]);
    assert!(why.stdout.contains("count[scale=4] reruns: the content of count.sh changed (p.yaml:"), "{why}");
}
