"""What the recipes share: data that is made, a small model, and how ways are run and measured."""
