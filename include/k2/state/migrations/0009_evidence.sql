-- What was found beside the verdict, such as where a hung driver stood when it was ended.
ALTER TABLE k2.incidents ADD COLUMN evidence text;
