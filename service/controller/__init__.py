"""The reconciling loop: compares what was asked for with what runs, and starts, ends and tidies until they agree."""
