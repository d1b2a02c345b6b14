"""The plugin's manifest: valid, complete, and one file."""

from pathlib import Path

import npe2

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "src" / "napari_meduet" / "napari.yaml"


def test_the_manifest_is_valid_and_all_it_names_exists():
    npe2.PluginManifest.from_file(MANIFEST).validate_imports()


def test_the_installed_plugin_has_this_manifest():
    installed = npe2.PluginManifest.from_distribution("napari-meduet")
    assert installed.contributions == npe2.PluginManifest.from_file(MANIFEST).contributions


def test_the_manifest_at_the_top_is_a_link_to_it():
    assert (ROOT / "napari.yaml").resolve() == MANIFEST


def test_every_command_is_used_and_every_use_is_a_command():
    """One wrong id and npe2 drops the entry; one unused command is a promise without a button."""
    contributions = npe2.PluginManifest.from_file(MANIFEST).contributions
    commands = [command.id for command in contributions.commands or ()]
    uses = [
        entry.command
        for point in ("readers", "writers", "widgets", "sample_data")
        for entry in getattr(contributions, point) or ()
        if getattr(entry, "command", None)
    ]
    uses += [
        entry.command
        for entries in (contributions.menus or {}).values()
        for entry in entries
        if getattr(entry, "command", None)
    ]
    assert set(uses) == set(commands)
    assert len(set(commands)) == len(commands)
