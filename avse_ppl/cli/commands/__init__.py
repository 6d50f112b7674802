"""The commands of ``avse-ppl``, one file each; what is heavy is imported once a command runs."""
