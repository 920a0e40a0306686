"""The options of retraining: the same in both places, in help and in meaning."""

import dataclasses

import typer
from typer.testing import CliRunner

from kubeflow import commands as kubeflow_commands
from pipeline.retrain import commands
from pipeline.retrain.options import Options, spread


def parameters(command):
    app = typer.Typer()
    app.command()(command)
    return {one.name: one for one in typer.main.get_command(app).params}


def test_both_commands_have_each_option_with_the_same_words_and_default():
    here, there = parameters(commands.retrain), parameters(kubeflow_commands.retrain)
    for field in dataclasses.fields(Options):
        for words in ("opts", "help", "default", "metavar", "multiple"):
            assert getattr(here[field.name], words) == getattr(there[field.name], words), field.name
        assert here[field.name].help
    own = {"data", "test", "root", "preset"}
    assert (
        set(here) - {"install_completion", "show_completion"}
        == {field.name for field in dataclasses.fields(Options)} | own
    )
    assert all(one.help for one in [*here.values(), *there.values()])


def test_a_command_gets_them_as_one_and_its_own_as_they_were():
    app, got = typer.Typer(), []

    @app.command()
    @spread
    def command(place: str, options: Options, wait: float = 1.5) -> None:
        got.append((place, options, wait))

    words = ["here", "--window", "2", "--exclude", "3", "--exclude", "4", "--set", "a=1", "--wait", "2.5"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert CliRunner().invoke(app, ["here"], catch_exceptions=False).exit_code == 0
    assert got == [
        ("here", Options(window=2, exclude=[3, 4], assignments=["a=1"]), 2.5),
        ("here", Options(), 1.5),
    ]
